"""Which schedulers of diffusers fit a generator: another kind of noise gives images of noise, without an error."""

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers

from pipeline_lib.errors import InputError

DISTILLED = ("LCMScheduler", "TCDScheduler")  # steps of distilled networks, for noise as that of the others


def scheduler_class(name: str, own: type, config: Mapping[str, Any]) -> Any:
    """The class of diffusers that params name, if it fits the pipeline's own scheduler and the configuration of that.

    Raises:
        InputError: there is none, or it does not fit.
    """
    wanted = _known(name)
    if wanted is None:
        raise InputError(
            f"params.yaml: `synthesize.scheduler` is {name!r}; "
            "expected `default` or a scheduler class of diffusers, such as DPMSolverMultistepScheduler"
        )
    fitting = {own.__name__, *getattr(own, "_compatibles", [])}
    flows = bool(config.get("use_flow_sigmas"))  # a network of flow matching, whose own scheduler is of the other kind
    fits = (
        name in fitting
        or own.__name__ in getattr(wanted, "_compatibles", [])
        or (name in DISTILLED and len(fitting) > 1)
        or ("FlowMatch" in name and "FlowMatch" in own.__name__)
    )
    if not fits or (flows and "use_flow_sigmas" not in inspect.signature(wanted).parameters):
        raise InputError(
            f"params.yaml: `synthesize.scheduler` is {name}, which does not fit the generator's {own.__name__} and "
            f"would give noise; expected `default` or one of {', '.join(sorted(filter(_known, fitting)))}"
        )
    return wanted


def _known(name: str) -> Any:
    """The scheduler of diffusers of this name; none if there is none, or if it needs a package that is not there."""
    try:
        found = getattr(diffusers, name, None)
        return found if hasattr(found, "from_config") and hasattr(found, "set_timesteps") else None
    except ImportError:
        return None
