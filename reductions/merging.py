"""Token merging in one block: what is compared, which rule matches it, and the merge. The rules are files of their own."""

from torch import Tensor, nn

from vittle.reductions import bipartite, energy, importance
from vittle.reductions.matching import Matching, merge
from vittle.reductions.tokens import Attention, Operator, Site, Tokens
from vittle.reductions.windows import WindowMatch
from vittle.spaces.merging import Merging


class Merge(Operator):
    """Merge a block's most similar patch tokens until as many are left as the settings say."""

    def __init__(self, settings: Merging, site: Site) -> None:
        super().__init__()
        self.settings = settings
        self.site = site
        windows = settings.windows(site.shape, site.block)
        self.local: nn.Module | None = None
        if windows is not None:
            gone, removed = (tokens // windows.count for tokens in (site.shape.tokens - site.tokens, site.tokens - site.keep))
            self.local = WindowMatch(windows, gone, removed, site.shape.prefix)

    def forward(self, tokens: Tokens, attended: Attention) -> tuple[Tokens, Attention]:
        return merge(tokens, self._match(tokens, attended), self.settings.weights), attended

    def _match(self, tokens: Tokens, attended: Attention) -> Matching:
        shape, removed = self.site.shape, self.site.tokens - self.site.keep
        metric = self._metric(tokens, attended)
        if self.local is not None:
            matching: Matching = self.local(metric)
            return matching
        match self.settings.matching:
            case "bipartite":
                return bipartite.match(metric, removed, shape.prefix)
            case "energy":
                return energy.match(metric, removed, shape.prefix, self.site.block, shape.depth)
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
