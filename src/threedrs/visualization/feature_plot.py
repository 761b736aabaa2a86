"""A scene's features as an image: frames beside their first three principal components.

The components are those of all frames' features together, so a colour means the same in each. Costs
one singular value decomposition of at most 1,024 sampled feature vectors (about a second at 2,048
channels).
"""

import numpy as np
from PIL import Image

from threedrs.scenes.store import SceneStore
from threedrs.teachers.feature_store import FeatureStore
from threedrs.visualization.scene_plot import contact_sheet
from threedrs.visualization.scene_view import SceneView

FRAMES_SHOWN = 8  # evenly spaced over the scene
FRAME_WIDTH = 224  # pixels
SAMPLED_VECTORS = 1024
GAP = 4  # pixels


def principal_colours(features_VhwC: np.ndarray) -> np.ndarray:
    """Return the first three principal components as colours, (V, h, w, 3) uint8.

    Each component is scaled so that its 1st to 99th percentile spans 0 to 255. Its sign, which is
    arbitrary, is chosen so that the channel with the largest weight counts positive.
    """
    channels = features_VhwC.shape[-1]
    vectors_NC = features_VhwC.reshape(-1, channels).astype(np.float32)
    vectors_NC -= vectors_NC.mean(axis=0)
    sampled = np.linspace(0, len(vectors_NC) - 1, min(SAMPLED_VECTORS, len(vectors_NC))).astype(int)
    _, _, axes_KC = np.linalg.svd(vectors_NC[sampled], full_matrices=False)
    axes_3C = np.zeros((3, channels), dtype=np.float32)
    axes_3C[: len(axes_KC[:3])] = axes_KC[:3]
    largest_3 = np.abs(axes_3C).argmax(axis=1)
    axes_3C *= np.where(axes_3C[np.arange(3), largest_3] < 0, -1, 1)[:, None]
    components_N3 = vectors_NC @ axes_3C.T
    low_3, high_3 = np.percentile(components_N3, (1, 99), axis=0)
    spread_3 = np.where(high_3 > low_3, high_3 - low_3, 1)
    scaled_N3 = np.clip((components_N3 - low_3) / spread_3, 0, 1) * 255
    return scaled_N3.astype(np.uint8).reshape(*features_VhwC.shape[:3], 3)


def plot_features(features: FeatureStore, scene_store: SceneStore) -> Image.Image:
    """Return each shown frame above its features' principal components.

    Raises:
        StoreError: the shard lacks the scene, is damaged, or is of other frames.
        DataError: a frame cannot be decoded.
    """
    scene = scene_store.scene
    view = SceneView.of(scene_store)
    features.frames(scene, view.frame_ids)  # refused where they are of other frames
    colours_Vhw3 = principal_colours(features.features(scene))
    shown = np.unique(np.linspace(0, len(view.frame_ids) - 1, FRAMES_SHOWN).astype(int)).tolist()
    columns = []
    for index in shown:
        frame = view.image(index, FRAME_WIDTH)
        patches = Image.fromarray(colours_Vhw3[index])
        patches = patches.resize(frame.size, Image.Resampling.NEAREST)
        columns.append(contact_sheet([frame, patches], columns=1, gap=GAP))
    captions = [f"frame {view.frame_ids[index]}" for index in shown]
    return contact_sheet(columns, columns=len(columns), captions=captions, gap=GAP)
