"""Token merging in one block: what is compared, which rule matches it, and the merge. The rules are files of their own."""

from typing import Any

from torch import Tensor, nn

from vittle.reductions.matching import bipartite, energy, importance
from vittle.reductions.matching.merge import Matching, merge
from vittle.reductions.matching.windows import WindowMatch
from vittle.reductions.merge_embedding import MergeEmbedding
from vittle.reductions.tokens import Attention, Operator, Site, Tokens
from vittle.spaces.merging import Merging


class Merge(Operator):
    """Merge a block's most similar patch tokens until as many are left as the settings say."""

    signals = True

    def __init__(self, settings: Merging, site: Site, embedding: MergeEmbedding | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.site = site
        self.removed = site.act.entering - site.act.leaving
        # In a tuple, since its rows become part of another layer, and are none of this one's.
        self._layers = () if embedding is None else (embedding.layers[site.row.visit.block],)
        windows = settings.windows(site.shape, site.row.index)
        self.local: nn.Module | None = None
        if windows is not None:
            gone = (site.shape.tokens - site.act.entering) // windows.count
            self.local = WindowMatch(windows, gone, self.removed // windows.count, site.shape.prefix)

    def projection(self) -> nn.Linear | None:
        layers: Any = self._layers if self.settings.metric == "decoupled" else ()
        return next(iter(layers), None)

    def reduce(self, tokens: Tokens, attended: Attention) -> tuple[Tokens, Attention]:
        return self._merged(tokens, self._match(tokens, attended)), attended

    def signalled(self, *given: Any) -> tuple[tuple[Tokens, Attention], Tensor]:
        """The mean similarity of the pairs that merge: (b, 1)."""
        tokens, attended = given
        matching = self._match(tokens, attended)
        return (self._merged(tokens, matching), attended), matching.similarity.mean(1, keepdim=True)

    def _merged(self, tokens: Tokens, matching: Matching) -> Tokens:
        return merge(tokens, matching, self.settings.weights)

    def _match(self, tokens: Tokens, attended: Attention) -> Matching:
        shape, removed = self.site.shape, self.removed
        metric = self._metric(tokens, attended)
        if self.local is not None:
            matching: Matching = self.local(metric)
            return matching
        match self.settings.matching:
            case "bipartite":
                return bipartite.match(metric, removed, shape.prefix)
            case "energy":
                return energy.match(metric, removed, shape.prefix, self.site.row.visit.block, shape.depth)
            case "importance":
                return importance.match(metric, attended.importance(), removed, shape.prefix)

    def _metric(self, tokens: Tokens, attended: Attention) -> Tensor:
        match self.settings.metric:
            case "key":
                return attended.mean_keys()
            case "feature":
                return tokens.features
            case "decoupled":
                return attended.embedded()


class Look(Merge):
    """Find the pairs that would merge, and merge none."""

    def reduce(self, tokens: Tokens, attended: Attention) -> tuple[Tokens, Attention]:
        return tokens, attended

    def _merged(self, tokens: Tokens, matching: Matching) -> Tokens:
        return tokens
