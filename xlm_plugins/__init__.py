"""xlm-plugins: cross-lingual language models from plugins.

This module has the public names.  Those that a plugin's entry-point module needs are imported
here, without torch; all others are imported on first use, so that ``xlm --help`` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from xlm_plugins.contracts.masking_options import MaskingOptions
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
from xlm_plugins.core.options import option
from xlm_plugins.core.registry import Component

if TYPE_CHECKING:
    from xlm_plugins.config.model import GenerationOptions, ModelOptions
    from xlm_plugins.contracts.batch import (
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
    from xlm_plugins.contracts.framing import frame_sides
    from xlm_plugins.contracts.layer import Layer, ParameterGroup
    from xlm_plugins.contracts.objective import Objective
    from xlm_plugins.contracts.ragged import Ragged
    from xlm_plugins.contracts.scores import accuracy, f1, macro_f1, matthews, pearson, spearman
    from xlm_plugins.contracts.tables import Table, read_table
    from xlm_plugins.contracts.task import LabelledTexts, Split, Task, TaskData, Values
    from xlm_plugins.contracts.tokenizer import Tokenizer
    from xlm_plugins.core.files import read_json, whole_file, whole_folder, write_json, write_text
    from xlm_plugins.core.plugins import Plugins
    from xlm_plugins.core.selection import Position
    from xlm_plugins.core.text_files import read_lines
    from xlm_plugins.inference.loaded_model import load
    from xlm_plugins.model.bundle import Bundle
    from xlm_plugins.model.generation.search import Hypotheses, check_beam, generate
    from xlm_plugins.model.model import Model
    from xlm_plugins.model.weights import named_weights
    from xlm_plugins.runs.find import find_bundle

__version__ = "0.1.0"

_LAZY_NAMES = {
    "config.model": "GenerationOptions ModelOptions",
    "contracts.batch": "Batch Layout LossOutput Samples Step Vocabulary "
    "choose_for_evaluation choose_masked join_pair pack pack_translation",
    "contracts.framing": "frame_sides",
    "contracts.layer": "Layer ParameterGroup",
    "contracts.objective": "Objective",
    "contracts.ragged": "Ragged",
    "contracts.scores": "accuracy f1 macro_f1 matthews pearson spearman",
    "contracts.tables": "Table read_table",
    "contracts.task": "LabelledTexts Split Task TaskData Values",
    "contracts.tokenizer": "Tokenizer",
    "core.files": "read_json whole_file whole_folder write_json write_text",
    "core.plugins": "Plugins",
    "core.selection": "Position",
    "core.text_files": "read_lines",
    "inference.loaded_model": "load",
    "model.bundle": "Bundle",
    "model.generation.search": "Hypotheses check_beam generate",
    "model.model": "Model",
    "model.weights": "named_weights",
    "runs.find": "find_bundle",
}
"""Module of `xlm_plugins` -> its public names, which are imported on first use."""

_MODULES = {name: module for module, names in _LAZY_NAMES.items() for name in names.split()}

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
    "Plugins",
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
    "check_beam",
    "choose_for_evaluation",
    "choose_masked",
    "f1",
    "find_bundle",
    "frame_sides",
    "generate",
    "hookimpl",
    "join_pair",
    "load",
    "macro_f1",
    "matthews",
    "named_weights",
    "option",
    "pack",
    "pack_translation",
    "pearson",
    "read_json",
    "read_lines",
    "read_table",
    "spearman",
    "whole_file",
    "whole_folder",
    "write_json",
    "write_text",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"xlm_plugins.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
