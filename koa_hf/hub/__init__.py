"""Publishing on the Hugging Face Hub.

- `contents`: files that make up a published data set, model or Space, and checks of them
- `publish`: one commit with these files
- `model_card`: the model card, generated from a run folder
"""

__all__ = ["contents", "model_card", "publish"]
