"""A windowkv service for your own tests: real gRPC in your own process, no torch, no model to load.

    from windowkv_client.testing import InProcessServer

    def test_my_code() -> None:
        with InProcessServer(answers={"Who signs?": "Ada."}) as server, server.client() as client:
            assert my_code(client) == "Ada."

What is real: the wire, names, pages, labels, aliases, expiry, errors with their reasons, progress, streaming, usage.
What is not: the model. It gives the answers you script; any other input it continues by copying, as a language model
with nothing but an induction head would: it looks for the longest earlier occurrence of the text's ending and goes on
as that did, up to the end of the sentence. Its tokens are UTF-8 bytes. Sampling parameters are checked, and those that
end an answer (max_tokens, stop, stop_token_ids) work; it is always greedy. Sizes in bytes are made up, in proportion.

`server.evict(cache)` forgets a cache, `server.fail_next(error, ...)` makes a call fail, also in the midst of a stream.
"""

from windowkv_client.testing._server import InProcessServer

__all__ = ["InProcessServer"]
