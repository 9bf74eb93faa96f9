"""Statistics commands: comparison of two models on the same cases, and sample size of a study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lepton_vision.cli.completion import of_aggregate, of_unit, one_of
from lepton_vision.cli.options import Json, check_choice, parse_columns, print_facts, split_names

if TYPE_CHECKING:
    from lepton_vision.config.sections import EvaluationConfig
    from lepton_vision.evaluation import Aggregation
    from lepton_vision.predictions import Predictions
    from lepton_vision.types import Target


def compare(
    first: Annotated[Path, typer.Argument(help="Predictions of the first model (CSV or Parquet).")],
    second: Annotated[Path, typer.Argument(help="Predictions of the second model, of the same cases.")],
    out: Annotated[Path, typer.Option(help="Folder for comparison.json and comparison.html.")],
    threshold: Annotated[float, typer.Option(help="Operating point of the first model.")] = 0.5,
    threshold_b: Annotated[float | None, typer.Option(help="Of the second; default the same.")] = None,
    names: Annotated[str, typer.Option(help="What the page calls the models: first,second.")] = "",
    columns: Annotated[str, typer.Option(help="Of the first table: image_id=file,y_prob=score, …")] = "",
    columns_b: Annotated[str, typer.Option(help="Of the second.")] = "",
    target: Annotated[
        list[str] | None,
        typer.Option(help="[NAME:]kind=ordinal[,classes=a+b+c], or kind=regression,unit=years; repeatable."),
    ] = None,
    margin: Annotated[float | None, typer.Option(help="Of non-inferiority, for every endpoint (in the unit).")] = None,
    endpoints: Annotated[str, typer.Option(help="Figures to adjust for, with commas; default by kind.")] = "",
    unit: Annotated[
        str,
        typer.Option(help="image, series, study or patient.", autocompletion=of_unit),
    ] = "image",
    aggregate: Annotated[
        str,
        typer.Option(
            help="With --unit: mean, max, noisy_or or learnt.",
            autocompletion=of_aggregate,
        ),
    ] = "mean",
    validation: Annotated[
        Path | None, typer.Option(help="With learnt: validation predictions of the first model.")
    ] = None,
    validation_b: Annotated[Path | None, typer.Option(help="With learnt: of the second.")] = None,
    interval: Annotated[
        str, typer.Option(help="bca or percentile.", autocompletion=one_of("bca", "percentile"))
    ] = "bca",
    replicates: Annotated[int, typer.Option(min=100, help="Bootstrap replicates.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    as_json: Json = False,
) -> None:
    """Compare two models on the same cases.

    Differences have paired intervals and P values, and non-inferiority is judged.
    """
    from lepton_vision.config import Config
    from lepton_vision.evaluation import compare as compare_models
    from lepton_vision.files import new_results, write_atomic
    from lepton_vision.pipeline.case_points import stated_point
    from lepton_vision.predictions.paired_cases import load_pair
    from lepton_vision.reporting import write_comparison

    check_choice("unit", unit, ("image", "series", "study", "patient"))
    check_choice("aggregate", aggregate, ("mean", "max", "noisy_or", "learnt"))
    check_choice("interval", interval, ("percentile", "bca"))
    changes = {"unit": unit, "aggregation": aggregate, "interval": interval, "replicates": replicates, "seed": seed}
    settings = Config().override(*(f"evaluation.{key}={value}" for key, value in changes.items()))
    with new_results(out) as stage:
        named = parse_columns(columns), parse_columns(columns_b)
        tables = load_pair((first, second), columns=named, stated=target or ())
        called = _model_names(names, (first, second), tables)
        limits = _probability("threshold", threshold), _probability("threshold-b", threshold_b, default=threshold)
        points = [stated_point(table.targets, threshold=limit) for table, limit in zip(tables, limits, strict=True)]
        fitted = _fitted((validation, validation_b), settings.evaluation, targets=tables[0].targets, columns=named)
        result = compare_models(
            *tables,
            operating_point=points[0],
            operating_point_b=points[1],
            endpoints=split_names(endpoints) or None,
            margin=margin,
            config=settings.evaluation,
            aggregations=fitted,
        )
        facts = {"names": list(called), **result.to_dict()}
        write_atomic(stage / "comparison.json", json.dumps(facts, indent=1))
        units = _in_units(tables, settings.evaluation, fitted)
        write_comparison(result, stage / "comparison.html", predictions=units, names=called)
    shown = {name: _endpoints(part) for name, part in facts["targets"].items()}
    counts = {"a": called[0], "b": called[1], "n": result.n, "n_patients": result.n_patients}
    counts |= {key: value for key, value in result.provenance.items() if key == "unknown_patient"}
    print_facts({**counts, "targets": shown, "comparison": str(out / "comparison.json")}, as_json=as_json)


def _model_names(stated: str, paths: tuple[Path, Path], tables: tuple[Predictions, Predictions]) -> tuple[str, str]:
    """What was stated; else the names of the files, where these tell the models apart; else the bundles."""
    from lepton_vision.errors import ConfigError

    names = split_names(stated)
    if stated and (len(names) != 2 or names[0] == names[1]):
        raise ConfigError(
            f"Expected two different names, as in --names ours,theirs. Received: {stated!r}.", key="names"
        )
    if names:
        return names[0], names[1]
    bundles = [f"bundle {(table.bundle_id or '')[:8]}" for table in tables]
    for first, second in ([path.stem for path in paths], bundles):
        if first != second and "predictions" not in (first, second):
            return first, second
    return "first model", "second model"


def _in_units(
    tables: tuple[Predictions, Predictions], settings: EvaluationConfig, fitted: tuple[Aggregation, Aggregation] | None
) -> tuple[Predictions, Predictions]:
    """The predictions of what was compared: those of images, or of the units that they were joined to."""
    from lepton_vision.evaluation import aggregate

    if settings.unit == "image":
        return tables
    how, fits = settings.aggregation, fitted or (None, None)
    joined = [aggregate(one, unit=settings.unit, method=how, learnt=fit) for one, fit in zip(tables, fits, strict=True)]
    return joined[0], joined[1]


def _fitted(
    paths: tuple[Path | None, Path | None],
    settings: EvaluationConfig,
    *,
    targets: tuple[Target, ...],
    columns: tuple[dict[str, str], dict[str, str]],
) -> tuple[Aggregation, Aggregation] | None:
    """The learnt aggregation of each model, each on its own predictions of validation."""
    from lepton_vision.errors import ConfigError
    from lepton_vision.evaluation import fit_aggregation
    from lepton_vision.predictions import Predictions

    if settings.aggregation != "learnt" or settings.unit == "image":
        return None
    given = [path for path in paths if path is not None]
    if len(given) < len(paths):
        raise ConfigError(
            "--aggregate learnt needs --validation and --validation-b: predictions of validation by each model.",
            key="validation",
        )
    tables = [
        Predictions.load(path, targets=targets, columns=named) for path, named in zip(given, columns, strict=True)
    ]
    fits = [fit_aggregation(table, unit=settings.unit) for table in tables]
    return fits[0], fits[1]


def _endpoints(part: dict[str, Any]) -> dict[str, Any]:
    return {name: part["figures"][name] for name in part["endpoints"]}


def _probability(name: str, value: float | None, *, default: float = 0.5) -> float:
    from lepton_vision.errors import ConfigError

    number = default if value is None else value
    if not 0.0 <= number <= 1.0:
        raise ConfigError(f"--{name} is a probability from 0 to 1. Received: {number:g}.", key=name)
    return number


def plan(
    figure: Annotated[
        str,
        typer.Option(
            help="auroc, sensitivity, specificity or accuracy.",
            autocompletion=one_of("auroc", "sensitivity", "specificity", "accuracy"),
        ),
    ],
    expected: Annotated[float, typer.Option(help="Value that it is expected to have.")],
    width: Annotated[float, typer.Option(help="Wanted width of its interval.")],
    prevalence: Annotated[float | None, typer.Option(help="Share of positive images.")] = None,
    confidence: Annotated[float, typer.Option(help="Of the interval.")] = 0.95,
    images_per_patient: Annotated[float, typer.Option(help="Mean number of images of a patient.")] = 1.0,
    icc: Annotated[float, typer.Option(help="Correlation between images of one patient.")] = 0.0,
    model: Annotated[
        str,
        typer.Option(
            help="Variance of an AUROC: hanley_mcneil or obuchowski.",
            autocompletion=one_of("hanley_mcneil", "obuchowski"),
        ),
    ] = "hanley_mcneil",
    as_json: Json = False,
) -> None:
    """Compute how many patients a study needs.

    For an interval of the wanted width around the figure that is expected.
    """
    from lepton_vision.evaluation import plan_sample

    found = plan_sample(
        figure,  # type: ignore[arg-type]
        expected=expected,
        width=width,
        prevalence=prevalence,
        confidence=confidence,
        images_per_patient=images_per_patient,
        icc=icc,
        model=model,  # type: ignore[arg-type]
    )
    print_facts(found.to_dict(), as_json=as_json)
