"""What one flag is: the row type of the table of settings."""

from dataclasses import dataclass

from lodestar_router.config.converters import Convert


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One flag; `metavar` is its unit or kind, None for a switch."""

    name: str
    field: str  # of Config; "" if `does_nothing`
    group: str
    metavar: str | None
    convert: Convert
    help: str
    default: str = ""
    many: bool = False  # takes several values, and adds them up when repeated
    does_nothing: str = ""  # why, for the log: it is checked and is no field of Config
