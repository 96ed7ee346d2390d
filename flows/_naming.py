"""What flow runs are called: what they do, and of what."""

from __future__ import annotations

from pathlib import PurePath

from prefect.runtime import flow_run

from lazypipe.secrets import hidden


def named() -> str:
    """The flow and the last part of its source, as ``pca of wide.npy``; the name of its MLflow run is made alike."""
    config = (flow_run.parameters or {}).get("config")
    values = config if isinstance(config, dict) else config.model_dump() if config is not None else {}
    source = values.get("source") or values.get("folder") or ""
    first = hidden(str(source[0] if isinstance(source, list | tuple) else source))
    more = " and others" if isinstance(source, list | tuple) and len(source) > 1 else ""
    flow = flow_run.flow_name
    return f"{flow} of {PurePath(first).name}{more}" if first else str(flow)
