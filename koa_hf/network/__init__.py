"""The network: timm's Xception in torch and OpenVINO, and its files.

- `xception`: build, cut into trunk and tail, fine-tune, load, save
- `preprocess`: `Radiograph` -> input tensor
- `losses`: cross-entropy, soft ordinal, focal, distillation
- `engine_names`: names of engines and precisions, without torch
- `engines`: inference by torch or OpenVINO
- `precision`: float32, bfloat16 or float16, by device
- `model_folder`: model folder or Hub id -> local files
"""

__all__ = ["engine_names", "engines", "losses", "model_folder", "precision", "preprocess", "xception"]
