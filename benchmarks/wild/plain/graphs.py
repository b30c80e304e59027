"""Graph networks on one graph, given as node features and an edge list (2, edges) of sources and targets."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GraphConvolution(nn.Module):
    """A linear layer, and the sum over neighbours weighted by the inverse roots of both degrees."""

    def __init__(self, features_in: int, features_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features_in, features_out, bias=False)
        self.bias = nn.Parameter(torch.zeros(features_out))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        x = self.linear(x)
        degree = torch.ones(x.shape[0], dtype=x.dtype).index_add(0, target, torch.ones(source.shape[0], dtype=x.dtype))
        weight = degree[source].rsqrt() * degree[target].rsqrt()
        neighbours = torch.zeros_like(x).index_add(0, target, x[source] * weight[:, None])
        return neighbours + x / degree[:, None] + self.bias


class GCN(nn.Module):
    """The graph convolutional network of Kipf and Welling, 2017."""

    def __init__(self, features: int = 24, hidden: int = 32, classes: int = 5) -> None:
        super().__init__()
        widths = (features, hidden, hidden, classes)
        self.layers = nn.ModuleList(GraphConvolution(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.dropout(F.relu(layer(x, edges)), 0.5, self.training)
        logits: Tensor = self.layers[-1](x, edges)
        return logits


class GraphAttention(nn.Module):
    """Attention over neighbours: additive scores, a softmax over the edges that enter a node."""

    def __init__(self, features_in: int, features_out: int, heads: int, concatenated: bool = True) -> None:
        super().__init__()
        self.heads, self.features_out, self.concatenated = heads, features_out, concatenated
        self.linear = nn.Linear(features_in, heads * features_out, bias=False)
        self.source_score = nn.Parameter(torch.randn(heads, features_out) * features_out**-0.5)
        self.target_score = nn.Parameter(torch.randn(heads, features_out) * features_out**-0.5)
        self.bias = nn.Parameter(torch.zeros(heads * features_out if concatenated else features_out))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        h = self.linear(x).view(-1, self.heads, self.features_out)  # (nodes, heads, features)
        scores = (h * self.source_score).sum(-1)[source] + (h * self.target_score).sum(-1)[target]
        weights = self._softmax(F.leaky_relu(scores, 0.2), target, x.shape[0])  # (edges, heads)
        messages = h[source] * weights[:, :, None]
        h = torch.zeros_like(h).index_add(0, target, messages)
        return (h.flatten(1) if self.concatenated else h.mean(1)) + self.bias

    def _softmax(self, scores: Tensor, target: Tensor, nodes: int) -> Tensor:
        index = target[:, None].expand(-1, self.heads)
        largest = torch.full((nodes, self.heads), -torch.inf).scatter_reduce(0, index, scores, "amax")
        exponentials = (scores - largest[target]).exp()
        sums = torch.zeros(nodes, self.heads).scatter_add(0, index, exponentials)
        return exponentials / (sums[target] + 1e-16)


class GAT(nn.Module):
    """The graph attention network of Velickovic et al., 2018."""

    def __init__(self, features: int = 24, hidden: int = 8, heads: int = 4, classes: int = 5) -> None:
        super().__init__()
        self.first = GraphAttention(features, hidden, heads)
        self.second = GraphAttention(heads * hidden, classes, 1, concatenated=False)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        x = F.dropout(x, 0.6, self.training)
        x = F.dropout(F.elu(self.first(x, edges)), 0.6, self.training)
        logits: Tensor = self.second(x, edges)
        return logits


def one_graph(nodes: int = 40, edges: int = 150, features: int = 24) -> tuple[Tensor, Tensor]:
    """Node features and edges; each node has one edge from itself, so that no softmax is empty."""
    loops = torch.arange(nodes).expand(2, -1)
    return torch.randn(nodes, features), torch.cat([torch.randint(0, nodes, (2, edges)), loops], 1)
