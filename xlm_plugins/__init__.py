"""xlm-plugins: cross-lingual language models from plugins.

The public names.  Those that a plugin's entry-point module needs are torch-free and imported
here; those that need torch are imported on first use, so that ``xlm --help`` stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from xlm_plugins.core.errors import (
    BundleError,
    DataError,
    DivergenceError,
    OptionError,
    PluginError,
    RunError,
    XLMError,
)
from xlm_plugins.core.hookspecs import hookimpl
from xlm_plugins.core.masking_options import MaskingOptions
from xlm_plugins.core.options import option
from xlm_plugins.core.registry import Component

if TYPE_CHECKING:
    from xlm_plugins.core.batch import (
        Batch,
        Layout,
        LossOutput,
        Samples,
        Step,
        Vocabulary,
        choose_for_evaluation,
        choose_masked,
        join_pair,
        pack,
        pack_translation,
    )
    from xlm_plugins.core.contracts import Layer, Objective, ParameterGroup, Tokenizer
    from xlm_plugins.core.ragged import Ragged
    from xlm_plugins.core.scores import accuracy, f1, macro_f1, matthews, pearson, spearman
    from xlm_plugins.core.selection import Position
    from xlm_plugins.core.tables import Table, read_table
    from xlm_plugins.core.task import LabelledTexts, Split, Task, TaskData, Values
    from xlm_plugins.loading import load
    from xlm_plugins.model.bundle import Bundle
    from xlm_plugins.model.config import GenerationOptions, ModelOptions
    from xlm_plugins.model.generation import Hypotheses, generate
    from xlm_plugins.model.root import Model
    from xlm_plugins.training.run import find_bundle

__version__ = "0.1.0"

_ON_FIRST_USE = {
    "Batch": "xlm_plugins.core.batch",
    "Bundle": "xlm_plugins.model.bundle",
    "GenerationOptions": "xlm_plugins.model.config",
    "Hypotheses": "xlm_plugins.model.generation",
    "LabelledTexts": "xlm_plugins.core.task",
    "Layer": "xlm_plugins.core.contracts",
    "Layout": "xlm_plugins.core.batch",
    "LossOutput": "xlm_plugins.core.batch",
    "Model": "xlm_plugins.model.root",
    "ModelOptions": "xlm_plugins.model.config",
    "Objective": "xlm_plugins.core.contracts",
    "ParameterGroup": "xlm_plugins.core.contracts",
    "Position": "xlm_plugins.core.selection",
    "Ragged": "xlm_plugins.core.ragged",
    "Samples": "xlm_plugins.core.batch",
    "Split": "xlm_plugins.core.task",
    "Step": "xlm_plugins.core.batch",
    "Table": "xlm_plugins.core.tables",
    "Task": "xlm_plugins.core.task",
    "TaskData": "xlm_plugins.core.task",
    "Tokenizer": "xlm_plugins.core.contracts",
    "Values": "xlm_plugins.core.task",
    "Vocabulary": "xlm_plugins.core.batch",
    "accuracy": "xlm_plugins.core.scores",
    "choose_for_evaluation": "xlm_plugins.core.batch",
    "choose_masked": "xlm_plugins.core.batch",
    "f1": "xlm_plugins.core.scores",
    "find_bundle": "xlm_plugins.training.run",
    "generate": "xlm_plugins.model.generation",
    "join_pair": "xlm_plugins.core.batch",
    "load": "xlm_plugins.loading",
    "macro_f1": "xlm_plugins.core.scores",
    "matthews": "xlm_plugins.core.scores",
    "pack": "xlm_plugins.core.batch",
    "pack_translation": "xlm_plugins.core.batch",
    "pearson": "xlm_plugins.core.scores",
    "read_table": "xlm_plugins.core.tables",
    "spearman": "xlm_plugins.core.scores",
}

__all__ = [
    "Batch",
    "Bundle",
    "BundleError",
    "Component",
    "DataError",
    "DivergenceError",
    "GenerationOptions",
    "Hypotheses",
    "LabelledTexts",
    "Layer",
    "Layout",
    "LossOutput",
    "MaskingOptions",
    "Model",
    "ModelOptions",
    "Objective",
    "OptionError",
    "ParameterGroup",
    "PluginError",
    "Position",
    "Ragged",
    "RunError",
    "Samples",
    "Split",
    "Step",
    "Table",
    "Task",
    "TaskData",
    "Tokenizer",
    "Values",
    "Vocabulary",
    "XLMError",
    "__version__",
    "accuracy",
    "choose_for_evaluation",
    "choose_masked",
    "f1",
    "find_bundle",
    "generate",
    "hookimpl",
    "join_pair",
    "load",
    "macro_f1",
    "matthews",
    "option",
    "pack",
    "pack_translation",
    "pearson",
    "read_table",
    "spearman",
]


def __getattr__(name: str) -> Any:
    if name in _ON_FIRST_USE:
        return getattr(importlib.import_module(_ON_FIRST_USE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
