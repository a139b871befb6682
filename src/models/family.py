"""A family of recognisers as one object, known by transformers' ``model_type``: what sets it apart from the others.

Importing a family is cheap: what needs torch or transformers is imported where it is called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

    from src.models.dimensions import Dimensions
    from src.models.graph import ModelGraph
    from src.models.speech import SpeechModel
    from src.settings import ModelSettings


class Family(ABC):
    """One architecture. Registered in :mod:`src.models.families`.

    Attributes:
        name: transformers' ``model_type``.
        sizes: fields of config.json; the tensor and the axis that each is the size of.
        layers: fields of config.json that count blocks; ``encoder`` or ``decoder``, as tensors' names have it.
        width: the field of config.json with the width that attention heads share.
        heads: fields of config.json that count attention heads.
        usual: fields of config.json that no weight tells, and what every published size says.
        tokens: token ids that config.json or generation_config.json has to tell.
        more_fields: what its configuration class accepts beside its fields.
        pads_clips: whether clips are padded with silence to a window, of which ``evaluate.window=clip`` can spare half.
        rewritten: in words, what :meth:`prepare` made of transformers' module that :meth:`restored` can not undo, if
            there is anything.
        told_language: whether the prompt of a multilingual checkpoint tells language and task.
        has_decoder: whether a decoder writes transcripts token by token; without one, a head reads the encoder (CTC).
    """

    name: ClassVar[str]
    sizes: ClassVar[Mapping[str, tuple[str, int]]]
    layers: ClassVar[Mapping[str, str]]
    width: ClassVar[str]
    heads: ClassVar[tuple[str, ...]]
    usual: ClassVar[Mapping[str, str | bool]] = {}
    tokens: ClassVar[tuple[str, ...]] = ("eos_token_id",)
    more_fields: ClassVar[frozenset[str]] = frozenset()
    pads_clips: ClassVar[bool] = False
    rewritten: ClassVar[str] = ""
    told_language: ClassVar[bool] = False
    has_decoder: ClassVar[bool] = True

    @property
    def module(self) -> Any:
        """The class of transformers with ``from_config`` and ``from_pretrained`` of its modules."""
        from transformers import AutoModelForSpeechSeq2Seq

        return AutoModelForSpeechSeq2Seq

    @property
    @abstractmethod
    def extractor(self) -> Any:
        """The class of its feature extractors."""

    def read_extractor(self, folder: Path) -> Any:
        """The feature extractor that a checkpoint's files in ``folder`` describe. Raises OSError: there is none."""
        from transformers import AutoFeatureExtractor

        return AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)

    def check_extractor(self, extractor: Any, config: PreTrainedConfig) -> None:  # noqa: B027 - a hook
        """Whether an extractor of that class makes what the encoder of ``config`` takes. Raises UserError."""

    def prompt(
        self,
        generation: GenerationConfig,  # noqa: ARG002 - a hook
        config: PreTrainedConfig,
        vocabulary: Mapping[str, int],  # noqa: ARG002 - likewise
        language: str | None,  # noqa: ARG002 - likewise
    ) -> tuple[int, ...]:
        """Token ids that transcripts start with; none where nothing is generated token by token.

        Args:
            generation: the checkpoint's generation settings; what they leave out may be added.
            config: its configuration.
            vocabulary: ids of all tokens, the special ones included; empty without a tokenizer.
            language: ``model.language``.

        Raises:
            UserError: the checkpoint does not tell, or the language is none of its own.
        """
        start = getattr(config, "decoder_start_token_id", None)
        return () if start is None else (start,)

    def prepare(self, module: PreTrainedModel) -> None:  # noqa: B027 - a hook
        """Rewrites parts of transformers' ``module``, in place, as parts that methods know and that compute the same.

        It has all its weights, or none of any value (on torch's meta device). Afterwards it runs through
        :class:`~src.models.speech.SpeechModel` alone.
        """

    def restored(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Undoes :meth:`prepare` on some or all tensors of a prepared module, by name, which may have other values.

        Not to be asked of a family with something ``rewritten``.
        """
        return dict(tensors)

    @abstractmethod
    def graph(self, config: PreTrainedConfig) -> ModelGraph:
        """The structure of its modules."""

    @abstractmethod
    def dimensions(self, config: PreTrainedConfig) -> Dimensions:
        """The sizes that the analytic costs need."""

    @abstractmethod
    def speech(
        self, module: PreTrainedModel, settings: ModelSettings, extractor: Any | None, tokenizer: Any | None
    ) -> SpeechModel:
        """The recogniser around ``module``. Raises UserError."""
