"""Pretraining and translation as a job: objectives on a prepared data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from xlm_plugins.config.inherited import absolute_init, split_init
from xlm_plugins.config.settings import Settings, Values, resolve, to_toml
from xlm_plugins.contracts.objective import Objective
from xlm_plugins.core.errors import OptionError, RunError
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.saved_tokenizers import SavedTokenizer
from xlm_plugins.core.selection import LayerSelection, ObjectiveSelection
from xlm_plugins.data.batches.left_out import text_left_out
from xlm_plugins.data.batches.loader import TrainingBatches
from xlm_plugins.data.batches.pools import BlockTable, stream_languages
from xlm_plugins.data.dataset.download import is_url
from xlm_plugins.data.dataset.health import findings
from xlm_plugins.data.dataset.manifest import TOKENIZER_NAME, TRAIN
from xlm_plugins.model.bundle import TextModel
from xlm_plugins.model.model import Model
from xlm_plugins.runs.find import find_bundle
from xlm_plugins.training.best_models import Validation
from xlm_plugins.training.engines.engine import Engine
from xlm_plugins.training.job import Job, Outcome, n_parameters
from xlm_plugins.training.preflight import Rehearsal, largest
from xlm_plugins.training.pretraining.evaluation import PretrainingEvaluation
from xlm_plugins.training.pretraining.plan import PretrainingPlan, check_tokenizer, make_plan
from xlm_plugins.training.pretraining.translations import TranslationEvaluation
from xlm_plugins.training.progress import Report
from xlm_plugins.training.run_job import dry_run_job, run_job
from xlm_plugins.training.trainer import TrainerState, TrainingPlan
from xlm_plugins.training.warm_start.copy_weights import initialise, initialise_embeddings


def train(settings: Settings, plugins: Plugins) -> Outcome:
    """Train until the end, or until a reason to stop earlier.

    :raises XLMError: something does not fit; nothing has been written then.
    """
    return run_job(settings.train, _decide(settings, plugins), plugins)


def dry_run(settings: Settings, plugins: Plugins) -> None:
    """Print what `train` would do, without training and without a run folder.

    :raises XLMError: something does not fit.
    """
    dry_run_job(settings.train, _decide(settings, plugins))


def _decide(settings: Settings, plugins: Plugins) -> Callable[[Report], Job]:
    def decide(report: Report) -> Job:
        if settings.train.data is None:
            report.note("no --data: using the embedded corpus, prepared in seconds on first use")
        plan = make_plan(settings, plugins)
        for finding in findings(plan.manifest):
            report.warn(str(finding))
        return Pretraining(settings, plan, plugins)

    return decide


class Pretraining(Job):
    """One run of objectives on a data set."""

    command = "xlm train"

    def __init__(self, settings: Settings, plan: PretrainingPlan, plugins: Plugins) -> None:
        self.settings = settings
        self.plan = plan
        self.plugins = plugins
        self._left_out = text_left_out(plan.objectives, plan.steps, plan.manifest, plan.sizes)
        super().__init__(
            settings.train,
            settings.optimizer,
            plan.description,
            plan.manifest.fingerprint,
            _stem(settings),
            settings.settings_from,
        )

    def check_resumed(self, checkpoint: Path, run: Path) -> None:
        tokenizer = SavedTokenizer.read(checkpoint / TOKENIZER_NAME)
        check_tokenizer(self.plan.manifest, self.plan.folder, tokenizer.fingerprint, str(run))
        fingerprint = TrainerState.read(checkpoint).data
        if fingerprint != self.data:
            raise RunError(
                f"the run was trained on a data set with fingerprint {fingerprint}, and "
                f"{self.plan.folder} has {self.data}",
                remedy="give --data the data set of the run, or start a new run from its weights: "
                f"xlm train --init {run} ...",
            )

    def build(self) -> Model:
        return self.description.build_model(self.plan.objectives)

    def notes(self, model: Model) -> list[str]:
        """The data, the objectives, and the parameters by part of the model."""
        plan, total = self.plan, n_parameters(model)
        layers = sum(n_parameters(layer) for layer in model.layers_by_position.values())
        tables = sum(p.numel() for name, p in model.named_parameters() if ".embeddings." in name)
        steps = ", ".join(f"{name}:{','.join(map(str, s))}" for name, s in plan.steps.items())
        placed = ", ".join(f"{p.component.name} at {p.position}" for p in plan.description.layers)
        left_out = [one.line() for one in self._left_out if one.sentences_left_out]
        return [
            f"data: {plan.folder} ({', '.join(plan.manifest.languages)}; vocabulary of "
            f"{plan.manifest.tokenizer.size:,} tokens)",
            f"objectives: {steps}" + (f"; layers: {placed}" if placed else ""),
            f"parameters: {total:,} (embeddings {tables:,}, plugin layers {layers:,}, "
            f"the rest {total - tables - layers:,})",
            *left_out,
        ]

    def initialise(self, model: Model, report: Report) -> None:
        for text in self.settings.train.init:
            stack, reference = split_init(text)
            bundle = find_bundle(reference)
            copied = initialise(
                model, self.description, self.plan.tokenizer, bundle, self.plugins, stack
            )
            for line in copied.lines():
                report.note(line)
        if vectors := self.settings.train.init_embeddings:
            options, tokenizer = self.description.options, self.plan.tokenizer
            report.note(initialise_embeddings(model, options, tokenizer, Path(vectors)))

    def describe_update(self, index: int) -> str:
        update = self.plan.schedule.update(index)
        return f"{update.objective}:{update.step}"

    def passes(self, n_updates: int) -> list[str]:
        plan, tokens = self.plan, self.settings.train.batch_tokens
        lines = [f"passes over each text in {n_updates:,} steps of about {tokens:,} tokens:"]
        for (name, step), n in plan.schedule.counts(n_updates).items():
            layout = plan.objectives[name].layout(step)
            stream = plan.manifest.stream(TRAIN, stream_languages(layout, step))
            eos = plan.manifest.tokenizer.roles["eos"]
            table = BlockTable.of(stream, plan.sizes.batching(layout, stream, step, eos))
            lines.append(
                f"  {n * tokens / table.n_tokens.sum():>9,.2f}  {name}:{step} in {n:,} steps"
            )
        return lines

    def rehearsals(self, n_parts: int) -> list[Rehearsal]:
        plan = self.plan
        return [
            largest(objective, plan.steps[name], plan.manifest, plan.sizes, n_parts)
            for name, objective in plan.objectives.items()
        ]

    def training_plan(self, engine: Engine) -> TrainingPlan:
        plan, options = self.plan, self.settings.train
        batches = TrainingBatches(
            plan.folder, plan.manifest, plan.schedule, plan.objectives, plan.sizes, options.seed,
            engine.rank, engine.world_size, options.accumulation, options.skip_bad_shards,
        )  # fmt: skip
        plan.schedule.check(options.most_steps)
        if not engine.can_generate:
            _refuse_generating(plan)
        evaluation = self._evaluation(engine)
        measured = evaluation.names(engine.model, "valid")
        return TrainingPlan(
            plan.description,
            plan.folder / TOKENIZER_NAME,
            plan.objectives,
            plan.schedule.update,
            batches,
            evaluation,
            Validation.of(options, _first_perplexity(plan, measured), measured),
            evaluates_untrained=True,
            may_leave_out=options.skip_bad_shards,
            left_out=[one.record() for one in self._left_out],
        )

    def config(self) -> str:
        return _config(self.settings)

    def completed(self, config: Values) -> str:
        return _config(resolve(config, {}, self.plugins))

    def _evaluation(self, engine: Engine) -> PretrainingEvaluation:
        plan, settings = self.plan, self.settings
        n_sentences = settings.train.translate_sentences if engine.can_generate else 0
        model = TextModel(plan.description, engine.model, plan.tokenizer, plan.objectives)
        return PretrainingEvaluation(
            plan.folder,
            plan.manifest,
            plan.objectives,
            plan.steps,
            plan.sizes,
            TranslationEvaluation(
                model, plan.folder, plan.manifest, plan.steps, settings.generation, n_sentences
            ),
        )


def _config(settings: Settings) -> str:
    """The settings, with the paths of data, models and word vectors made absolute."""
    train = settings.train
    train = replace(train, init=tuple(map(absolute_init, train.init)))
    if train.data is not None and not is_url(train.data):
        train = replace(train, data=str(Path(train.data).resolve()))
    if train.init_embeddings is not None:
        train = replace(train, init_embeddings=str(Path(train.init_embeddings).resolve()))
    return to_toml(replace(settings, train=train))


def _stem(settings: Settings) -> str:
    """The name of a run folder that the user did not name: objectives and layers."""
    names = [ObjectiveSelection.parse(text).name for text in settings.train.objective]
    names += [LayerSelection.parse(text).name for text in settings.train.layer]
    return "-".join(name.rpartition("/")[2] for name in names)


def _refuse_generating(plan: PretrainingPlan) -> None:
    for name, objective in plan.objectives.items():
        if type(objective).prepare is not Objective.prepare:
            raise OptionError(
                f"{name} generates text during training, which ZeRO stage 3 cannot do: its ranks "
                "gather parameters together at every step, and generate unequal numbers of tokens",
                expected="--zero-stage 0, 1 or 2",
            )


def _first_perplexity(plan: PretrainingPlan, measured: list[str]) -> tuple[str, ...]:
    """What selects the best model by default: the first perplexity that is measured."""
    wanted = (f"valid_{name}_ppl" for name in plan.objectives)
    return tuple(f"_{name}" for name in wanted if name in measured)[:1]
