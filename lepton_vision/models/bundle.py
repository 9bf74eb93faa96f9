"""Bundle of a trained model: weights, configuration, targets, calibration and operating point in one folder."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lepton_vision.config import Config, SegmentationConfig, fingerprint
from lepton_vision.errors import BundleError, ConfigError, LeptonError
from lepton_vision.models.assemble import AnyNetwork, empty_network
from lepton_vision.models.bundle_files import read_bundle_files, write_bundle_files
from lepton_vision.models.ensemble import member_states
from lepton_vision.models.provenance import (
    complete_provenance,
    encoder_facts,
    require_encoder,
    tensors_sha256,
    without_paths,
)
from lepton_vision.models.resnet import stem_kind
from lepton_vision.predictions.answer_sets import Rule, rule_from
from lepton_vision.predictions.calibration import Calibrator
from lepton_vision.predictions.novelty import Novelty
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.types import Displayed, Table, Target

_NOVELTY = "novelty."  # tensors of that prefix are none of the network
_ENCODER = "encoder."
# Before there was such a section, training and scoring took secondary captures for images.
_OLDER: dict[str, Any] = {"scan": {"include": ["secondary_capture"]}}
_KEYS = frozenset({"config", "targets", "channels", "temperatures", "operating_point", "provenance"})
# Written where there is any; older bundles lack them.
_LATER_KEYS = frozenset({"calibrators", "set_rules", "novelty", "encoder"})


@dataclass(frozen=True)
class Bundle(Displayed):
    """A trained model and all that a prediction and a decision need.

    Attributes:
        config: what the model was trained with; ``preprocess`` is what an image must go through.
        targets: what it predicts, in the order of the heads.
        state: state dict of the Network, or Ensemble, on the CPU; treat it as read-only.
        temperatures: by target name, what logits are divided by before sigmoid or softmax; 1 where not named.
        operating_point: where probabilities become decisions, or None.
        calibrators: by target name, how probabilities are corrected after sigmoid or softmax; none where not named.
        set_rules: by target name, from which probability on an answer is in the set, or how far the interval of a
            number reaches; none where not named.
        novelty: how far an image is from those of the training, or None.
        provenance: versions, seed, data fingerprint, validation figures; no paths and no patient data.
        run_dir: folder of the run that it belongs to, whose ledger counts looks at the test split (the folder above
            the one that it was loaded from), or None. It is not saved.

    Example:
        >>> bundle = Bundle.load("runs/ct-01/bundle")  # doctest: +SKIP
        >>> bundle = bundle.with_temperatures({"covid": 1.3})  # doctest: +SKIP
    """

    config: Config
    targets: tuple[Target, ...]
    state: dict[str, Tensor] = field(repr=False)
    temperatures: dict[str, float] = field(default_factory=dict)
    operating_point: OperatingPoint | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    calibrators: dict[str, Calibrator] = field(default_factory=dict)
    set_rules: dict[str, tuple[Rule, ...]] = field(default_factory=dict)
    novelty: Novelty | None = field(default=None, repr=False)
    run_dir: Path | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.run_dir is not None:
            object.__setattr__(self, "run_dir", self.run_dir.absolute())
        if not (self.targets or self.config.segmentation) or not all(
            any(name.startswith(_ENCODER) for name in one) for one in self.member_states
        ):
            raise BundleError("Expected a target or structures, and the state dict of a Network. Received: less.")
        _check_temperatures(self.temperatures, self.targets)
        _check_calibrators(self.calibrators, self.targets)
        _check_set_rules(self.set_rules, self.targets)
        if self.operating_point is not None:
            _check_point(self.operating_point, self.targets)

    @property
    def channels(self) -> int:
        """C of the network's input."""
        return self.config.channels

    @functools.cached_property
    def member_states(self) -> tuple[dict[str, Tensor], ...]:
        """State dict of each member's Network: one, but for an ensemble (``config.model.members``)."""
        return member_states(self.state, count=self.config.model.members)

    @functools.cached_property
    def bundle_id(self) -> str:
        """16 hexadecimal digits that change with whatever changes a prediction or a decision, and with nothing else.

        They cover the weights, the preprocessing, the network's design, the targets, the calibration, the
        thresholds, the set rules and the novelty; not the provenance, nor how the training was set up.
        """
        point, plain = self.operating_point, self.config.to_dict()
        facts = {
            "weights": self._weights_sha256,
            "preprocess": plain["preprocess"],
            "model": self._encoder_design() | self._later_design(),
            "targets": [[t.name, t.kind, list(t.classes), *([t.unit] if t.unit else [])] for t in self.targets],
            "temperatures": {t.name: self.temperature(t.name) for t in self.targets},
            "thresholds": None if point is None else point.to_dict()["thresholds"],
        }
        facts |= self._later_facts()
        if self.config.segmentation is not None:
            facts["segmentation"] = [plain["segmentation"], list(self.config.segmentation.names)]
        if self.config.volume is not None:
            later = () if self.config.volume.channels else ("channels",)  # older bundles lack it
            facts["volume"] = {key: value for key, value in plain["volume"].items() if key not in later}
        return fingerprint(facts)

    def _encoder_design(self) -> dict[str, Any]:
        model = self.config.model
        further = {"stem": stem_kind(self.config)} if model.is_resnet else {"options": model.options}
        return {"backbone": model.backbone} | further

    def _later_design(self) -> dict[str, Any]:
        """Of the network's design what older bundles lack, where it is not as it was before: they keep their id."""
        model = self.config.model
        mirrored = {"mirrored": True} if model.mirrored else {}
        return mirrored | ({"members": model.members} if model.members > 1 else {})

    def _later_facts(self) -> dict[str, Any]:
        """What older bundles lack, where there is any: without it a bundle keeps its id."""
        calibrators = {name: one.to_dict() for name, one in self.calibrators.items()}
        rules = {name: [rule.to_dict() for rule in several] for name, several in self.set_rules.items()}
        novelty = {} if self.novelty is None else self.novelty.to_dict() | {"sha256": tensors_sha256(self._novelty)}
        later = {"calibrators": calibrators, "set_rules": rules, "novelty": novelty}
        return {key: facts for key, facts in later.items() if facts}

    @property
    def _novelty(self) -> dict[str, Tensor]:
        """Tensors that travel beside the weights."""
        arrays = {} if self.novelty is None else self.novelty.arrays
        return {_NOVELTY + name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}

    @functools.cached_property
    def _weights_sha256(self) -> str:
        return tensors_sha256(self.state)

    def temperature(self, target: str) -> float:
        """What the logits of ``target`` are divided by."""
        return self.temperatures.get(target, 1.0)

    def network(self) -> AnyNetwork:
        """Return the network, or ensemble, with a copy of the weights, on the CPU, in evaluation mode.

        It is a plain ``nn.Module``, which maps normalised images to a ``ModelOutput`` of logits before any calibration;
        ``network.preprocess(image)`` makes such images of an ``Image`` or a file.

        Raises:
            BundleError: the weights do not fit the configuration.

        Example:
            >>> network = bundle.network()  # doctest: +SKIP
            >>> network(network.preprocess("inbox/1.dcm")).logits["covid"]  # doctest: +SKIP
        """
        network = empty_network(self.config, channels=self.channels, targets=self.targets)
        self._check_state(network)
        network.load_state_dict({name: tensor.clone() for name, tensor in self.state.items()}, assign=True)
        network.start = f"bundle {self.bundle_id}"
        network.gives_masks = self.gives_masks
        setattr(network, "preprocess", functools.partial(_preprocess, self.config))  # noqa: B010  no part of it
        return network.eval()

    @property
    def gives_masks(self) -> bool:
        """Whether masks are predicted in scoring."""
        return self.config.segmentation is not None and self.config.segmentation.mode != "auxiliary"

    def require_masks(self) -> SegmentationConfig:
        """Return the segmentation section of a bundle that predicts masks.

        Raises:
            ConfigError: it has no segmentation head, or one that only helped to train (mode auxiliary).
        """
        if self.config.segmentation is None or not self.gives_masks:
            raise ConfigError(
                "Expected a bundle that predicts masks. Received: one without a segmentation head, or with one that "
                "only helped to train (mode auxiliary).",
                key="segmentation",
            )
        return self.config.segmentation

    def _check_state(self, network: AnyNetwork) -> None:
        wanted = {name: tensor.shape for name, tensor in network.state_dict().items()}
        differing = [name for name in wanted | self.state if wanted.get(name) != _shape(self.state.get(name))]
        if differing:
            raise BundleError(
                f"Expected weights of {self._design} with heads for {len(self.targets)} targets. "
                f"Received: {len(differing)} tensors that differ, first {differing[0]}. Copy the bundle from its run."
            )

    @property
    def _design(self) -> str:
        """What the network is, in words."""
        model = self.config.model
        return f"{model.members} x {model.backbone}" if model.members > 1 else model.backbone

    def with_operating_point(self, point: OperatingPoint) -> Bundle:
        """Return a copy that decides at ``point``.

        Raises:
            BundleError: other targets, or another number of thresholds than they need.
        """
        return self._replace(operating_point=point)

    def with_temperatures(self, temperatures: Mapping[str, float]) -> Bundle:
        """Return a copy with these temperatures in place of the old ones.

        Raises:
            BundleError: an unknown target, or a temperature that is not above 0.
        """
        return self._replace(temperatures={name: float(value) for name, value in temperatures.items()})

    def with_calibrators(self, calibrators: Mapping[str, Calibrator]) -> Bundle:
        """Return a copy with these calibrators in place of the old ones.

        Choose operating point and set rules anew: they hold for other probabilities.

        Raises:
            BundleError: an unknown target, or another number of maps than it has outputs.
        """
        return self._replace(calibrators=dict(calibrators))

    def with_set_rules(self, rules: Mapping[str, tuple[Rule, ...]]) -> Bundle:
        """Return a copy with these rules for sets of answers in place of the old ones.

        Raises:
            BundleError: an unknown target, or rules for other answers than it has.
        """
        return self._replace(set_rules=dict(rules))

    def with_novelty(self, novelty: Novelty | None) -> Bundle:
        """Return a copy that says by this how far an image is from those of the training."""
        return self._replace(novelty=novelty)

    def with_include(self, include: Collection[str]) -> Bundle:
        """Return a copy that scores these kinds of objects beside images, see ``config.ScanConfig``.

        Raises:
            ConfigError: a kind that does not exist.
        """
        return self._replace(config=self.config.override(f"scan.include={json.dumps(list(include))}"))

    def _replace(self, **changes: Any) -> Bundle:
        changed = replace(self, **changes)
        changed.__dict__["_weights_sha256"] = self._weights_sha256  # the weights are the same: hash them once
        return changed

    def save(self, folder: str | Path) -> Path:
        """Write the folder, whole or not at all; a bundle that stood there is replaced.

        Folders and paths of the configuration are reduced to their last part; what provenance lacks (versions, seed,
        time) is added.

        Returns:
            The folder.

        Raises:
            BundleError: weights that do not fit the configuration, something else in the way, or a full disk.
        """
        self._check_state(empty_network(self.config, channels=self.channels, targets=self.targets))
        facts = {
            "config": without_paths(self.config).to_dict(),
            "targets": Config(targets=self.targets).to_dict()["targets"],
            "channels": self.channels,
            "temperatures": dict(self.temperatures),
            "operating_point": None if self.operating_point is None else self.operating_point.to_dict(),
            "provenance": complete_provenance(self.provenance, seed=self.config.train.seed),
            **self._later_facts(),
            **encoder_facts(self.config),
        }
        return write_bundle_files(Path(folder), facts, self.state | self._novelty)

    @classmethod
    def load(cls, folder: str | Path) -> Bundle:
        """Read a folder that ``save`` wrote, and check every byte of it.

        Raises:
            BundleError: no such folder, a missing or damaged file, a newer format, facts that contradict each other, or
                an encoder that is not installed here: the message names its package.
        """
        folder = Path(folder)
        facts, state = read_bundle_files(folder)
        if set(facts) - _LATER_KEYS != _KEYS:
            odd = sorted((set(facts) - _LATER_KEYS) ^ _KEYS)
            raise BundleError(
                f"Expected the keys {', '.join(sorted(_KEYS))} in bundle.json. Missing or unknown: {', '.join(odd)}. "
                "It was written by another version: use that one, or train again.",
                path=folder,
                key=odd[0],
            )
        try:
            bundle = cls._from_facts(facts, state, run_dir=folder.absolute().parent)
        except Exception as error:  # ours name what is wrong; KeyError, TypeError … say that a value has another form
            told = str(error) if isinstance(error, LeptonError) else f"bundle.json has another form ({error!r})."
            raise BundleError(f"The bundle cannot be used: {told}", path=folder) from None
        return bundle

    @classmethod
    def _from_facts(cls, facts: Mapping[str, Any], state: dict[str, Tensor], *, run_dir: Path) -> Bundle:
        require_encoder(facts.get("encoder"))
        point, novelty = facts["operating_point"], facts.get("novelty")
        arrays = {
            name.removeprefix(_NOVELTY): state.pop(name).numpy() for name in list(state) if name.startswith(_NOVELTY)
        }
        bundle = cls(
            config=Config.from_dict(_OLDER | facts["config"]),
            targets=Config.from_dict({"targets": facts["targets"]}).targets,
            state=state,
            temperatures={str(name): float(value) for name, value in facts["temperatures"].items()},
            operating_point=None if point is None else OperatingPoint.from_dict(point),
            provenance=dict(facts["provenance"]),
            calibrators={str(k): Calibrator.from_dict(v) for k, v in facts.get("calibrators", {}).items()},
            set_rules={str(k): tuple(rule_from(rule) for rule in v) for k, v in facts.get("set_rules", {}).items()},
            novelty=None if novelty is None else Novelty.from_dict(novelty, arrays),
            run_dir=run_dir,
        )
        if bundle.channels != facts["channels"]:
            raise BundleError(f"Expected weights for {facts['channels']} channels. Received: {bundle.channels}.")
        bundle._check_state(empty_network(bundle.config, channels=bundle.channels, targets=bundle.targets))
        return bundle

    def _tables(self) -> tuple[Table, ...]:
        point = self.operating_point
        rows = {
            "bundle": self.bundle_id,
            "network": f"{self._design}, {self.channels} channels, {self.config.preprocess.size} pixels",
            "targets": "; ".join(target.described for target in self.targets),
            "temperatures": ", ".join(f"{t.name} {self.temperature(t.name):.3f}" for t in self.targets),
            "calibration": ", ".join(f"{name} {one.method}" for name, one in self.calibrators.items()) or "temperature",
            "operating point": "none" if point is None else f"{point.criterion}: {dict(point.thresholds)}",
            **{name: value for name, value in self.provenance.items() if not isinstance(value, dict)},
        }
        return (Table("Bundle", rows.items()),)


def _shape(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.shape


def _check_temperatures(temperatures: Mapping[str, float], targets: tuple[Target, ...]) -> None:
    names = [target.name for target in targets]
    for name, value in temperatures.items():
        if name not in names or not (np.isfinite(value) and value > 0):
            raise BundleError(
                f"Expected finite temperatures above 0 for {', '.join(names)}. Received: {name}={value}.", key=name
            )


def _check_calibrators(calibrators: Mapping[str, Calibrator], targets: tuple[Target, ...]) -> None:
    outputs = {target.name: target.outputs for target in targets}
    for name, one in calibrators.items():
        if len(one.maps) != outputs.get(name):
            raise BundleError(
                f"Expected calibration maps by target, this many: {outputs}. Received: {len(one.maps)} for {name!r}.",
                key=name,
            )


def _check_set_rules(rules: Mapping[str, tuple[Rule, ...]], targets: tuple[Target, ...]) -> None:
    answers = {t.name: list(t.set_answers) for t in targets}
    for name, several in rules.items():
        if [rule.classes for rule in several] != answers.get(name):
            raise BundleError(
                f"Expected set rules for the answers of {', '.join(answers)}. Received: others for {name!r}.", key=name
            )


def _check_point(point: OperatingPoint, targets: tuple[Target, ...]) -> None:
    needed = {target.name: target.thresholds for target in targets}
    received = {name: len(values) for name, values in point.thresholds.items()}
    if received != needed or any(np.isinf(t) for values in point.thresholds.values() for t in values):
        raise BundleError(
            "Expected an operating point with finite thresholds, or NaN for no decision, this many by target: "
            f"{needed}. Received: {received}.",
            key="operating_point",
        )


def _preprocess(config: Config, image: Any) -> Tensor:
    # By name, since models stand left of the pixels; see ``inference.preprocessing``.
    made: Tensor = import_module("lepton_vision.inference.preprocessing").Preprocessing(config)(image)
    return made
