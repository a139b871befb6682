"""Settings of a point: typed, frozen, and checked before anything heavy is loaded."""

from src.settings.groups import (
    BLOCKS,
    TORCH,
    DatasetSettings,
    EdgeDeviceSettings,
    ExportSettings,
    GgmlExport,
    ModelSettings,
    NoExport,
    OnnxExport,
    ScopeSettings,
    TrackingSettings,
)
from src.settings.settings import (
    BIT_WIDTHS,
    FULL_PRECISION,
    STAGES,
    Settings,
    checked_folder,
    from_config,
)

__all__ = [
    "BIT_WIDTHS",
    "BLOCKS",
    "FULL_PRECISION",
    "STAGES",
    "TORCH",
    "DatasetSettings",
    "EdgeDeviceSettings",
    "ExportSettings",
    "GgmlExport",
    "ModelSettings",
    "NoExport",
    "OnnxExport",
    "ScopeSettings",
    "Settings",
    "TrackingSettings",
    "checked_folder",
    "from_config",
]
