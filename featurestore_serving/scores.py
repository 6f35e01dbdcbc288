"""Scores by entity keys: request → features, in the order the model expects → scores; the same for both transports."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from featurestore.definitions.model import Model
from featurestore.definitions.project import Project
from featurestore.definitions.reference import FeatureOf
from featurestore.errors import DefinitionError, TerminalError
from featurestore.models.onnx import ModelError, OnnxModel, Vector
from featurestore.models.publish import Manifest
from featurestore.online.values import Status
from featurestore.store import OnlineRow
from featurestore_serving.features import Answer, Features, Keys, Plan, RequestValues
from featurestore_serving.models import ServedModels


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """What a client asks for; nothing is checked yet."""

    model: str
    keys: Keys
    request: RequestValues


@dataclass(frozen=True, slots=True)
class ScoreAnswer:
    """One score or reason per row of the request, in order, and what was read for it."""

    model: str
    version: str
    scores: list[float | None]
    reasons: list[str | None]  # why a row has no score
    read: Answer


@dataclass(frozen=True, slots=True)
class _Recipe:
    """How a version is scored: what is read, its names in index order, and what stands in for a value, by status."""

    manifest: Manifest
    plan: Plan
    names: tuple[str, ...]
    stand_ins: Mapping[Status, Mapping[str, float]]


class Scores:
    """Answers requests; thread-safe. Raises as Features and ServedModels do."""

    def __init__(self, project: Project, features: Features, models: ServedModels) -> None:
        self._features, self._models, self._project = features, models, project
        self._declared = {model.model_id: model for model in project.models}
        self._recipes: dict[str, _Recipe] = {}

    def answer(self, asked: ScoreRequest) -> ScoreAnswer:
        """The scores by one version, whatever is published meanwhile."""
        model = self._models.get(asked.model)
        recipe = self._recipes.get(asked.model)
        if recipe is None or recipe.manifest is not model.manifest:
            recipe = self._recipes[asked.model] = self._recipe(model.manifest)
        read = self._features.read(recipe.plan, asked.keys, asked.request)
        scores, reasons = _scored(model.onnx, read.rows, recipe)
        return ScoreAnswer(model.manifest.model_id, model.manifest.version, scores, reasons, read)

    def _recipe(self, manifest: Manifest) -> _Recipe:
        try:
            expected = self._expected(manifest)
            plan = self._features.plan(tuple(expected))
        except DefinitionError as error:
            raise TerminalError(
                f"version {manifest.version} of {manifest.model_id} does not fit this server's project: {error}"
            ) from error
        declared = self._declared.get(manifest.model_id) or Model(manifest.model_id, expected)
        missing, expired = declared.missing, declared.expired
        stand_ins = {Status.MISSING: missing, Status.NULL: missing, Status.EXPIRED: expired}
        return _Recipe(manifest, plan, tuple(one.name for one in expected), stand_ins)

    def _expected(self, manifest: Manifest) -> list[FeatureOf]:
        """The features that the version was trained on, of the versions of their views that it pins."""
        views = [self._project.view(name, number) for name, number in manifest.view_versions.items()]
        known = {feature.name: view[feature.name] for view in views for feature in view.all_features}
        found: list[FeatureOf] = []
        for one in manifest.expected_features:
            if one.name not in known or known[one.name].feature.dtype.__name__ != one.type:
                raise DefinitionError(f"there is no feature {one.name!r} of type {one.type}")
            found.append(known[one.name])
        return found


def _scored(
    model: OnnxModel, rows: Sequence[OnlineRow], recipe: _Recipe
) -> tuple[list[float | None], list[str | None]]:
    vectors = [_vector(row, recipe) for row in rows]
    found = iter(_score(model, [vector for vector in vectors if not isinstance(vector, str)]))
    outcomes = [vector if isinstance(vector, str) else next(found) for vector in vectors]
    scores: list[float | None] = [None if isinstance(one, str) else one for one in outcomes]
    return scores, [one if isinstance(one, str) else None for one in outcomes]


def _vector(row: OnlineRow, recipe: _Recipe) -> Vector | str:
    """The model's inputs of a row, or why there are none."""
    found = [(name, row[name]) for name in recipe.names]
    values = [
        one.value if one.status is Status.PRESENT else recipe.stand_ins[one.status].get(name) for name, one in found
    ]
    if None in values:
        return ", ".join(f"{name} is {one.status}" for (name, one), v in zip(found, values, strict=True) if v is None)
    return cast("Vector", values)  # the gate lets no model in that expects texts


def _score(model: OnnxModel, vectors: Sequence[Vector]) -> list[float | str]:
    """Score rows together; if one of them cannot be scored, each alone, so that it harms no other."""
    try:
        return [score if math.isfinite(score) else f"the score is {score}" for score in model.score(vectors)]
    except ModelError as error:
        if len(vectors) == 1:
            return [str(error)]
        return [_score(model, [vector])[0] for vector in vectors]
