"""The conductor: takes requests, walks each through cache, selection and model, and answers."""
