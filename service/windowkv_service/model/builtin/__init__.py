"""The built-in model: weights, tokenizer and demo document, the documents it was trained on and how."""
