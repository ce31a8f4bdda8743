"""The thirteen tasks of RULER by name, in wordings of our own."""

from collections.abc import Mapping
from types import MappingProxyType

from windowkv_service.model.builtin.documents import paragraphs, retrieval
from windowkv_service.model.builtin.documents.task import TaskMaker
from windowkv_service.model.builtin.documents.variables import Variables
from windowkv_service.model.builtin.documents.word_counts import CommonWords, FrequentWords


def tasks() -> Mapping[str, TaskMaker]:
    """RULER's name of each task → what makes it at a document length (in tokens of the built-in model)."""
    return MappingProxyType(
        {
            "niah_single_1": retrieval.single_1,
            "niah_single_2": retrieval.single_2,
            "niah_single_3": retrieval.single_3,
            "niah_multikey_1": retrieval.multikey_1,
            "niah_multikey_2": retrieval.multikey_2,
            "niah_multikey_3": retrieval.multikey_3,
            "niah_multivalue": retrieval.multivalue,
            "niah_multiquery": retrieval.multiquery,
            "vt": Variables,
            "cwe": CommonWords,
            "fwe": FrequentWords,
            "qa_1": paragraphs.qa_1,
            "qa_2": paragraphs.qa_2,
        }
    )
