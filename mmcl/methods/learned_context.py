"""Keys of the methods that learn a context, and the choice of what it is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mmcl.config.schema import ComponentConfig, setting
from mmcl.errors import UserError, nearest
from mmcl.methods.context_learner import ContextLearner
from mmcl.methods.on_features import FeatureIngredients
from mmcl.methods.prompt_learner import PromptLearner, text_encoder_of
from mmcl.methods.shift_learner import ShiftLearner
from mmcl.methods.text_classifier import text_classifier
from mmcl.protocol import DatasetTask


@dataclass
class LearnedContextConfig(ComponentConfig):
    """Keys of a method that learns a context shared by all classes."""

    learns: str = setting(
        "prompt: the words before the class name, through the text encoder; shift: one vector that is added to the "
        "text features of all classes, where features come without an encoder."
    )
    prompts: str = setting(
        "Sentences whose features are shifted, such as simple or full; learns=prompt makes its own sentences."
    )
    prompts_at_once: int = setting(
        "Classes whose prompts the text encoder sees at once; more of them are encoded in parts, to save memory."
    )

    def __post_init__(self) -> None:
        """Refuse to learn what nobody knows, and parts of no class."""
        if self.learns not in LEARNERS:
            known = " or ".join(LEARNERS)
            raise UserError(f"method.learns={self.learns}: expected {known}.{nearest(self.learns, LEARNERS)}")
        if self.prompts_at_once < 1:
            raise UserError(f"method.prompts_at_once={self.prompts_at_once}: expected at least 1")


def refuse_missing_encoder(config: LearnedContextConfig, ingredients: FeatureIngredients) -> None:
    """Raise UserError where prompts shall be learned and there is no text encoder."""
    if config.learns == "prompt":
        text_encoder_of(ingredients.encoder, config.name)


def context_learner(
    config: LearnedContextConfig, ingredients: FeatureIngredients, task: DatasetTask, words: str
) -> ContextLearner:
    """Build the learner of a data set's classes that ``config.learns`` names.

    Args:
        config: keys of the method.
        ingredients: of the run.
        task: the data set.
        words: before the class name, each of one token; a shift has no words.
    """
    return LEARNERS[config.learns](config, ingredients, task, words)


def _prompt_learner(
    config: LearnedContextConfig, ingredients: FeatureIngredients, task: DatasetTask, words: str
) -> ContextLearner:
    encoder = text_encoder_of(ingredients.encoder, config.name)
    return PromptLearner(encoder, task.class_names, words, config.prompts_at_once)


def _shift_learner(
    config: LearnedContextConfig, ingredients: FeatureIngredients, task: DatasetTask, words: str
) -> ContextLearner:
    features, classes = task.encoded.texts(config.prompts)
    return ShiftLearner(text_classifier(features.float(), classes, task.size), config.prompts_at_once)


LEARNERS: dict[str, Callable[[LearnedContextConfig, FeatureIngredients, DatasetTask, str], ContextLearner]] = {
    "prompt": _prompt_learner,
    "shift": _shift_learner,
}
