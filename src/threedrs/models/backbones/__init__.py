"""The backbone families, one file each. Importing a file registers its family.

To add one, write its file and name it here (docs/BACKBONES.md).
"""

from threedrs.models.backbones import llava, qwen2_vl

__all__ = ["llava", "qwen2_vl"]
