"""Precompiled searches, one per beam size, with shared weights."""

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
    """The search of `translator` with each of `beam_sizes`, or as it is.

    Each search keeps all its hypotheses, so requests with different `n_best` share a batch.
    """

    def __init__(
        self, trained: LoadedModel, translator: Translator, beam_sizes: Sequence[int] = ()
    ):
        self.trained, options = trained, translator.options
        if beam_sizes and options.method != "beam":
            raise InputError(f"--beam_sizes is for --method=beam, not {options.method}")
        max_batch_size = translator.policy.size
        devices, max_output = translator.mesh.size, translator.max_output
        shapes = precompiled_shapes(
            max_batch_size, translator.tokens_per_batch, devices, max_output
        )
        searches = [replace(options, beam_size=beam) for beam in beam_sizes] or [options]
        self._translators = {
            search.beam_size: translator.with_options(replace(search, n_best=search.width), shapes)
            for search in searches
        }
        # An output may be longer than its source.
        output = options.limit(max_batch_size, max_output)
        self._forced_shapes = precompiled_shapes(
            output, translator.tokens_per_batch, 1, trained.model.config.max_positions
        )
        # The number of hypotheses of each beam size.
        self.beam_sizes = {beam: t.options.width for beam, t in self._translators.items()}
        self.max_batch_size = max(rows for rows, _ in shapes)  # sentences of one batch

    def precompile(
        self, progress: Callable[[int], None] = lambda _: None, should_continue=lambda: True
    ) -> None:
        """Compile all shapes concurrently; stops once `should_continue` returns False."""
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            for future in [pool.submit(self._run, step, should_continue) for step in self.steps()]:
                future.result()
                progress(1)

    def steps(self) -> list[Callable[[], None]]:
        """The compilations of `precompile` as functions."""
        model = self.trained.model, self.trained.params
        searches: list[Callable[[], None]] = [
            partial(translator.precompile, *shape)
            for translator in self._translators.values()
            for shape in translator.precompiled_shapes
        ]
        return searches + [
            partial(precompile_teacher_forcing, *model, *shape) for shape in self._forced_shapes
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
                precompiled_shapes=self._forced_shapes,
            )
            objects = iter(flat)
            answers |= {n: [next(objects) for _ in hypotheses[n]] for n in rows}
        return [answers[n] for n in range(len(requests))]

    @staticmethod
    def _run(step: Callable[[], None], should_continue: Callable[[], bool]) -> None:
        if should_continue():
            step()
