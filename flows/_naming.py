"""What flow runs are called: what they do, and of what."""

from __future__ import annotations

from pathlib import PurePath

from prefect.runtime import flow_run


def named() -> str:
    """As ``pca of wide.npy``; the MLflow run is called the same."""
    config = (flow_run.parameters or {}).get("config")
    values = config if isinstance(config, dict) else config.model_dump() if config is not None else {}
    source = values.get("source") or values.get("folder") or ""
    first = source[0] if isinstance(source, list | tuple) else source
    more = " and others" if isinstance(source, list | tuple) and len(source) > 1 else ""
    flow = flow_run.flow_name
    return f"{flow} of {PurePath(str(first)).name}{more}" if first else str(flow)
