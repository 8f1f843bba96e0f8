"""The checks: one call checks a component against everything that its contract promises."""

from __future__ import annotations

from typing import Any

from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.registry import Component, with_origin
from xlm_plugins.testing.promises import hold, random_state_kept


def check_objective(component: str | Component, **options: Any) -> None:
    """Check an objective against `xlm_plugins.Objective`.

    On a tiny data set and model, for each of the objective's own steps: batches are well formed
    and depend only on samples and generator, the loss is a sum over samples that do not affect
    each other, gradients reach the model, and it can overfit a batch.

    :param component: the name of an installed component, or the component itself.
    :param options: values of its options; others have their defaults.
    :raises BrokenPromiseError: it breaks a promise; an AssertionError that names it.
    :raises PluginError: no such component is installed.
    :raises OptionError: it has no such option, or refuses the value.
    """
    __tracebackhide__ = True
    owner, found, chosen = _checked_component("objective", component, options)

    from xlm_plugins.testing import batch_promises, loss_promises
    from xlm_plugins.testing.data import tiny_data

    with random_state_kept():
        case = batch_promises.ObjectiveCase(found, chosen, tiny_data())
        hold(owner, (*batch_promises.PROMISES, *loss_promises.PROMISES), case)


def check_layer(component: str | Component, **options: Any) -> None:
    """Check a layer against `xlm_plugins.Layer`.

    Alone and in every place of a tiny model: rows do not affect each other, counters add up,
    weights can be saved, and it learns.

    :param component: the name of an installed component, or the component itself.
    :param options: values of its options, to keep it small; others have their defaults.
    :raises BrokenPromiseError: it breaks a promise; an AssertionError that names it.
    :raises PluginError: no such component is installed.
    :raises OptionError: it has no such option, or refuses the value.
    """
    __tracebackhide__ = True
    owner, found, chosen = _checked_component("layer", component, options)

    from xlm_plugins.testing import layer_in_model_promises, layer_promises

    with random_state_kept():
        case = layer_promises.LayerCase(found, chosen)
        hold(owner, (*layer_promises.PROMISES, *layer_in_model_promises.PROMISES), case)


def check_tokenizer(component: str | Component, **options: Any) -> None:
    """Check a tokenizer against `xlm_plugins.Tokenizer`.

    Trained on a little text in two scripts: what it saves, how it encodes and decodes, and
    which ids it reserves for special tokens.

    :param component: the name of an installed component, or the component itself.
    :param options: values of its options; others have their defaults.
    :raises BrokenPromiseError: it breaks a promise; an AssertionError that names it.
    :raises PluginError: no such component is installed.
    :raises OptionError: it has no such option, or refuses the value.
    """
    __tracebackhide__ = True
    owner, found, chosen = _checked_component("tokenizer", component, options)

    from tempfile import TemporaryDirectory

    from xlm_plugins.testing import tokenizer_promises

    with random_state_kept(), TemporaryDirectory() as folder:
        case = tokenizer_promises.TokenizerCase(found, chosen, folder)
        hold(owner, tokenizer_promises.PROMISES, case)


def check_task(component: str | Component, **options: Any) -> None:
    """Check a downstream task against `xlm_plugins.Task`.

    On the files that the options name: what it reads, how it scores predictions, and where it
    writes them.

    :param component: the name of an installed component, or the component itself.
    :param options: values of its options, which name files that the test has written: a few
        rows for training, validation and test.
    :raises BrokenPromiseError: it breaks a promise; an AssertionError that names it.
    :raises PluginError: no such component is installed.
    :raises OptionError: it has no such option, or refuses the value.
    """
    __tracebackhide__ = True
    owner, found, chosen = _checked_component("task", component, options)

    from xlm_plugins.testing import task_promises

    with random_state_kept():
        hold(owner, task_promises.PROMISES, task_promises.TaskCase(found, chosen))


def _checked_component(
    kind: str, component: str | Component, values: dict[str, Any]
) -> tuple[str, Component, Any]:
    """The name of a component for errors, the component and its options, with general checks."""
    __tracebackhide__ = True
    from xlm_plugins.testing import component_promises

    module = None
    if isinstance(component, str):
        plugins = Plugins.discover()
        component = plugins.get(kind, component)
        module = _module_of(plugins, component)
    else:
        distribution = component.distribution or "this-test"
        component = with_origin(component, kind, distribution, component.version or "0")
    options = component.options_from(values)
    owner = f"the {kind} {component.name!r} of {component.distribution} {component.version}"
    case = component_promises.ComponentCase(component, options, module)
    hold(owner, component_promises.PROMISES, case)
    return owner, component, options


def _module_of(plugins: Plugins, component: Component) -> str:
    """The module that a component's entry point names."""
    (state,) = (state for state in plugins.states if component in state.components)
    module: Any = plugins.manager.get_plugin(f"{state.distribution}:{state.name}")
    return str(module.__name__)
