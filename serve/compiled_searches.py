"""Searches compiled ahead, one per beam size, over one set of weights."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from decode.batching import precompiled_shapes
from decode.options import InputError
from decode.teacher_forcing import precompile_teacher_forcing
from decode.translate import Translator
from experiments.json_output import hypotheses_to_json
from experiments.workdir import LoadedModel
from serve.request import TranslateRequest


class CompiledSearches:
    """`translator`'s search, also with other `beams`; each keeps all its hypotheses.

    `n_best` only selects among the hypotheses, so requests that differ in it share a batch.
    """

    def __init__(self, trained: LoadedModel, translator: Translator, beams: Sequence[int] = ()):
        self.trained, options = trained, translator.options
        if beams and options.method != "beam":
            raise InputError(f"--beam_sizes is for --method=beam, not {options.method}")
        max_batch_size = translator.policy.size
        devices, longest = translator.mesh.size, translator.max_output
        shapes = precompiled_shapes(max_batch_size, translator.tokens_per_batch, devices, longest)
        searches = [replace(options, beam_size=beam) for beam in beams] or [options]
        self._translators = {
            search.beam_size: translator.with_options(replace(search, n_best=search.width), shapes)
            for search in searches
        }
        # An output may be longer than its source.
        output = options.limit(max_batch_size, longest)
        self._forced = precompiled_shapes(
            output, translator.tokens_per_batch, 1, trained.model.config.max_positions
        )
        self.beams = {beam: t.options.width for beam, t in self._translators.items()}
        self.max_batch_size = max(rows for rows, _ in shapes)  # sentences of one batch

    def precompile(
        self, progress: Callable[[int], None] = lambda _: None, go_on=lambda: True
    ) -> None:
        """Compile all shapes, several at a time; stops early once `go_on` returns False."""
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            for future in [pool.submit(self._run, step, go_on) for step in self.steps()]:
                future.result()
                progress(1)

    def steps(self) -> list[Callable[[], None]]:
        """The compilations of `precompile`, as a list of functions."""
        model = self.trained.model, self.trained.params
        searches: list[Callable[[], None]] = [
            partial(translator.precompile, *shape)
            for translator in self._translators.values()
            for shape in translator.precompiled_shapes
        ]
        return searches + [
            partial(precompile_teacher_forcing, *model, *shape) for shape in self._forced
        ]

    def answer(self, beam_size: int, requests: Sequence[TranslateRequest]) -> list[list[dict]]:
        """Translate all requests' texts in one search; returns the translations of each request."""
        texts = [text for request in requests for text in request.texts]
        counts = [request.n_best for request in requests for _ in request.texts]
        ranked = iter(self._translators[beam_size].hypotheses(texts, counts=counts))
        hypotheses = [[next(ranked) for _ in request.texts] for request in requests]
        answers: dict[int, list[dict]] = {}
        for alignment in True, False:
            rows = [n for n, request in enumerate(requests) if request.alignment == alignment]
            flat = hypotheses_to_json(
                [per_text for n in rows for per_text in hypotheses[n]],
                self.trained,
                alignment=alignment,
                precompiled_shapes=self._forced,
            )
            objects = iter(flat)
            answers |= {n: [next(objects) for _ in hypotheses[n]] for n in rows}
        return [answers[n] for n in range(len(requests))]

    @staticmethod
    def _run(step: Callable[[], None], go_on: Callable[[], bool]) -> None:
        if go_on():
            step()
