"""The student: vision tower, projector, language model, and the parts that make it 3D-aware.

A frame becomes a grid of projected tokens, each with the position embedding of the world point it
shows. These visual tokens stand in the prompt where the image is. Hidden states at them feed the
object features and the 3D supervision. A forward pass over a pack costs one vision pass over the V
frames and one language pass over the shared prefix and all suffixes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

from threedrs.config.schema import SupervisionSettings
from threedrs.errors import ConfigError
from threedrs.models import heads, packing
from threedrs.models.attention.packed import PACKED, PackMask, pack_mask
from threedrs.models.attention.question_decoding import QuestionAttention
from threedrs.models.backbones.family import Family
from threedrs.models.backbones.fused_layers import fuse
from threedrs.models.scene_inputs import SceneInputs
from threedrs.models.visual_tokens import (
    NewlineTokens,
    VisualTokens,
    pooled_teacher,
    position_embedding,
    token_grid,
)

# The student's modules by the groups of ``train.tunable``.
GROUPS = {
    "vision_tower": ("vision_tower",),
    "projector": ("projector", "newline_tokens"),
    "language_model": ("language_model",),
    "heads": ("grounding_head", "proj_3d"),
}


class Student(nn.Module):
    """The multimodal language model with its grounding and projection heads.

    Args:
        family: the backbone, with its sizes.
        teacher_channels: output size of the projection head, or 0 for a student without one.
        coordinate_dtype: precision of the coordinates in the position embedding.
        attention: backend of the language model, see `threedrs.models.attention.packed`.
    """

    def __init__(
        self,
        family: Family,
        *,
        teacher_channels: int,
        coordinate_dtype: torch.dtype = torch.float32,
        attention: str = "auto",
    ) -> None:
        super().__init__()
        self.family = family
        self.teacher_channels = teacher_channels
        self.coordinate_dtype = coordinate_dtype
        self.attention = attention
        # What a checkpoint folder says of decoding (`threedrs.models.checkpoint.decoding`).
        self.generation: Mapping[str, Any] | None = None
        # Training would be over when a field that is not saved is missed. The same holds for the
        # names of the parameters, below.
        family.check_config_json(teacher_channels)
        self.vision_tower = family.vision_tower()
        self.projector = family.projector()
        self.newline_tokens: NewlineTokens | None = None
        if family.grid.newline:
            self.newline_tokens = NewlineTokens(self.channels)
        self.language_model = family.language_model()
        fuse(self.language_model)
        # Set on the built model: the constructor admits only transformers' own attention names.
        self.language_model.config._attn_implementation = PACKED
        # Declared here and built by `reset_heads`, which a load calls a second time.
        self.grounding_head: heads.GroundingHead
        self.proj_3d: nn.Sequential | None
        self.reset_heads()
        for name, _ in self.named_parameters():
            family.tensor_names.published_name(name)

    def reset_heads(self) -> None:
        """Build both heads anew, with random weights from torch's generator."""
        self.grounding_head = heads.GroundingHead(self.channels)
        self.proj_3d = None
        if self.teacher_channels:
            self.proj_3d = heads.projection_head(self.channels, self.teacher_channels)

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> "Student":
        """Move or cast the student, but for the rotary frequencies, which stay float32."""
        super()._apply(fn, recurse)
        self.restore_rotary()
        return self

    def restore_rotary(self) -> None:
        """Compute the frequencies of all rotary embeddings again, in float32."""
        for module in self.modules():
            if getattr(module, "rope_type", None) in ("default", "axial"):
                _restore_frequencies(module)

    @property
    def text_config(self) -> Any:
        """The language model's configuration."""
        return self.family.text_config

    @property
    def channels(self) -> int:
        """The hidden size D."""
        return self.text_config.hidden_size

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.grounding_head.zero_target.device

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return every parameter once, under the names of ``train.tunable``."""
        groups: dict[str, list[nn.Parameter]] = {name: [] for name in GROUPS}
        for name, parameter in self.named_parameters():
            module = name.split(".")[0]
            (group,) = [group for group, modules in GROUPS.items() if module in modules]
            groups[group].append(parameter)
        return groups

    def gradient_checkpointing_enable(self, kept_layers: int = 0) -> None:
        """Recompute all but the last ``kept_layers`` layers in the backward pass.

        They count from the language model's last one back into the vision tower.
        """
        layers: list[nn.Module] = []
        for model in (self.vision_tower, self.language_model):
            model.gradient_checkpointing_enable({"use_reentrant": False})
            layers += [
                one for one in model.modules() if isinstance(one, GradientCheckpointingLayer)
            ]
        for layer in layers[max(len(layers) - kept_layers, 0) :]:
            layer.gradient_checkpointing = False  # type: ignore[assignment]

    def position_embedding(self, points: Tensor) -> Tensor:
        """Return the position embedding (..., D) float32 of ``points`` (..., 3), metres, world."""
        return position_embedding(points, self.channels, self.coordinate_dtype)

    def visual_tokens(self, scene: SceneInputs) -> VisualTokens:
        """Run vision tower and projector over a scene's frames."""
        assert scene.grid == self.family.grid, "the scene was read for another token grid"
        if len(scene.rgb_VHWC) == 0:
            # A vision tower cannot tell the shapes of no frames.
            none_TD = self.embed(torch.empty(0, dtype=torch.long, device=self.device))
            side = self.family.grid.fine
            return VisualTokens(none_TD.new_empty(0, side, side, none_TD.shape[-1]), none_TD)
        fine_VFFD = self.family.fine_tokens(self.vision_tower, self.projector, scene.rgb_VHWC)
        grid_VGGD = self.family.coarse_tokens(fine_VFFD)
        # Only the tokens that the language model reads get it: feature A of an object is a mean of
        # the tokens before, and gets the embedding of the box centre instead.
        grid_VGGD = grid_VGGD + self.position_embedding(scene.patch_xyz_VGG3).to(grid_VGGD.dtype)
        if self.newline_tokens is None:
            return VisualTokens(fine_VFFD, grid_VGGD.flatten(0, 2))
        return VisualTokens(fine_VFFD, self.newline_tokens(grid_VGGD))

    def position_ids(self, index: Tensor, prefix: packing.Prefix, scene: SceneInputs) -> Tensor:
        """Return what the rotary embedding counts for tokens at ``index`` (B,T) of one sample."""
        return self.family.position_ids(index, len(prefix.before_ids), len(scene.rgb_VHWC))

    def embed(
        self, ids_T: Tensor, index_P: Tensor | None = None, points_P3: Tensor | None = None
    ) -> Tensor:
        """Return the embeddings (T,D) of text tokens.

        Those of the ``<coord>`` tokens at ``index_P`` get the position embedding of their points,
        metres, world frame, added.
        """
        tokens_TD = self.language_model.get_input_embeddings()(ids_T)
        if index_P is None or points_P3 is None or not len(index_P):
            return tokens_TD
        code_PD = self.position_embedding(points_P3)
        return tokens_TD.index_add(0, index_P, code_PD.to(tokens_TD.dtype))

    def run_language_model(
        self,
        tokens_TD: Tensor,
        position_ids: Tensor,
        mask: PackMask | Tensor | None,
        *,
        layer: int = -1,
        cache: Cache | None = None,
        questions: QuestionAttention | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return last hidden states (T,D), after the final norm, and the output (T,D) of ``layer``.

        The output of the last layer, or -1, is after the final norm, too. The keys and values of
        ``tokens_TD`` are added to ``cache``, which holds those before. With ``questions`` the
        tokens are those of questions of a scene, which share a prefix.
        """
        last = layer in (-1, self.text_config.num_hidden_layers - 1)
        # A mapping by kind of layer is taken as it is, where transformers would otherwise prepare a
        # mask of its own. A list of layers captures their outputs alone, not those of all 28.
        output = self.language_model.model(
            inputs_embeds=tokens_TD[None],
            position_ids=position_ids,
            attention_mask={"full_attention": mask},
            past_key_values=cache,
            use_cache=cache is not None,
            questions=questions,
            output_hidden_states=False if last else [layer],
        )
        hidden_TD = output.last_hidden_state[0]
        return hidden_TD, hidden_TD if last else output.hidden_states[layer][0]

    def object_features(self, scene: SceneInputs, fine_VFFD: Tensor, hidden_TD: Tensor) -> Tensor:
        """Return the object features (N,D), given the hidden states at the visual tokens."""
        position_ND = self.position_embedding(scene.boxes_N6[:, :3]).to(hidden_TD.dtype)
        return heads.object_features(
            fine_VFFD,
            token_grid(hidden_TD, self.family.grid),
            position_ND,
            scene.fine_NVFF,
            scene.coarse_NVGG,
        )

    def forward(self, pack: packing.Pack, supervision: SupervisionSettings) -> packing.PackLosses:
        """Return the losses of a pack.

        Raises:
            ConfigError: ``supervision.layer`` is not a layer of this language model.
            DataError: the teacher features do not fit.
        """
        # Not the student's own device: ZeRO-3 would count a look at a head's parameter from here as
        # its use here, which it has to know from the first pack on.
        device = pack.scene.rgb_VHWC.device
        return self.losses(packing.PackTensors.of(pack, self.family).to(device), supervision)

    def losses(
        self, pack: packing.PackTensors, supervision: SupervisionSettings
    ) -> packing.PackLosses:
        """Return the losses of a pack whose tensors are on the student's device; see `forward`.

        Nothing here asks the device for a number or copies one to it, so that the pass can be
        recorded.
        """
        scene, before = pack.scene, pack.before
        layer = self._supervised_layer(supervision)
        visual = self.visual_tokens(scene)
        text_TD = self.embed(pack.ids_T, pack.index_P, pack.points_P3)
        tokens_TD = torch.cat([text_TD[:before], visual.sequence_TD, text_TD[before:]])
        mask = pack_mask(pack.prefix_length, pack.owner_S, self.attention, tokens_TD)
        hidden_TD, supervised_TD = self.run_language_model(
            tokens_TD, pack.position_ids, mask, layer=layer
        )
        at_visual = slice(before, before + scene.visual_tokens)

        # Causal attention: no suffix has changed the hidden states at the visual tokens. So object
        # features and supervision are computed once and serve every sample of the pack.
        # Every head runs, one without a loss here with weight zero: the ranks of a ZeRO-3 run must
        # gather the same modules in each step.
        text_K = self._text_losses(hidden_TD, pack.text)
        objects_ND = self.object_features(scene, visual.fine_VFFD, hidden_TD[at_visual])
        grounding_K = self._grounding_losses(hidden_TD, objects_ND, pack.grounding)
        supervised_VGGD = token_grid(supervised_TD[at_visual], self.family.grid)
        return packing.PackLosses(
            text_K=text_K,
            grounding_K=grounding_K,
            supervision=self._supervision_loss(scene, supervised_VGGD, supervision),
            counted_K=pack.counted_K,
            predictions=pack.predictions,
        )

    def _supervised_layer(self, supervision: SupervisionSettings) -> int:
        layers = self.text_config.num_hidden_layers
        layer = layers - 1 if supervision.layer == "last" else int(supervision.layer)
        if layer >= layers:
            raise ConfigError(
                f"supervision.layer: {layer} is not a layer of this model; "
                f"valid: last, or 0 to {layers - 1}"
            )
        return layer

    def _text_losses(self, hidden_TD: Tensor, targets: packing.TextTargets) -> Tensor:
        """Return the mean cross entropy (K,) of each sample."""
        # Logits at every token would take 2 GB at 7B, and only M of them have a label to predict.
        logits_MT = self.language_model.lm_head(hidden_TD[targets.predictor_M])
        losses_M = nn.functional.cross_entropy(
            logits_MT.float(), targets.target_M, reduction="none"
        )
        return targets.weights_KM @ losses_M

    def _grounding_losses(
        self, hidden_TD: Tensor, objects_ND: Tensor, targets: packing.GroundingTargets
    ) -> Tensor:
        """Return InfoNCE (K,) of the grounding samples, 0 for the others."""
        scores_KM = self.grounding_head(objects_ND, hidden_TD[targets.index_K])
        scores_KM = scores_KM.masked_fill(~targets.known_M, -torch.inf)
        return targets.weight_K * heads.info_nce(scores_KM, targets.target_KM)

    def _supervision_loss(
        self, scene: SceneInputs, hidden_VGGD: Tensor, supervision: SupervisionSettings
    ) -> Tensor:
        if self.proj_3d is None:
            assert scene.teacher_VGGC is None, "teacher features need a projection head"
            return hidden_VGGD.new_zeros((), dtype=torch.float32)
        if scene.teacher_VGGC is None:
            # One token through the head, with weight 0: another rank's pack may have a teacher.
            return 0 * self.proj_3d(hidden_VGGD[:1, 0, 0]).float().sum()
        # A frame that the teacher did not see has no target, and is in no mean of the loss.
        if scene.supervised_S is not None:
            hidden_VGGD = hidden_VGGD[scene.supervised_S]
        predicted_VGGC = self.proj_3d(hidden_VGGD)
        teacher_VGGC = pooled_teacher(scene.teacher_VGGC, self.family.grid.coarse)
        return heads.supervision_loss(predicted_VGGC, teacher_VGGC, supervision, scene.scene)


def _restore_frequencies(module: Any) -> None:
    """Compute a rotary embedding's frequencies again, in float32."""
    held: Tensor = module.inv_freq
    if held.is_meta:
        return
    compute = getattr(module, "compute_axial_rope_parameters", None)
    if compute is None:
        compute = module.compute_default_rope_parameters
    # A cast of the whole model to half precision rounds them, and their products with positions in
    # the thousands are then off by many radians.
    with torch.device("cpu"):
        frequency, _ = compute(module.config)
    for name in ("inv_freq", "original_inv_freq"):
        setattr(module, name, frequency.to(device=held.device, dtype=torch.float32))
