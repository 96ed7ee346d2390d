"""The parameters of an estimator by their names, as scikit-learn's tools ask for them."""

from __future__ import annotations

import inspect
from typing import Any, Self

from lazypipe.errors import ConfigError


class Parameterised:
    """An estimator whose ``__init__`` keeps each of its parameters under that parameter's name."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters and their values; ``deep``, which scikit-learn passes, changes nothing."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> Self:
        """Change parameters by name. ConfigError for a name that is none."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ConfigError(f"{type(self).__name__} has no parameter {name!r}. It has {', '.join(known)}.")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.get_params().items())})"
