"""Networks that no library ships as one module, from `wild.plain`."""

import torch
from networks.cifar_resnet import CifarResNet

from wild.definitions import Definition, images
from wild.plain import graphs, series, speech, tabular

FAMILIES = {
    "gcn": Definition(graphs.GCN, graphs.one_graph),
    "gat": Definition(graphs.GAT, graphs.one_graph),
    "dlrm": Definition(tabular.DLRM, tabular.clicks),
    "kan": Definition(tabular.KAN, lambda: torch.rand(4, 8) * 2 - 1),
    "nbeats": Definition(series.NBeats, lambda: torch.randn(4, 24)),
    "tcn": Definition(series.TCN, lambda: torch.randn(4, 5, 32)),
    "patchtst": Definition(series.PatchTST, lambda: torch.randn(4, 48, 3)),
    "conformer": Definition(speech.Conformer, lambda: torch.randn(2, 48, 20)),
    "crepe": Definition(speech.Crepe, lambda: torch.randn(2, 1024)),
    "crnn": Definition(speech.CRNN, lambda: torch.randn(2, 1, 32, 64)),
    "keyword_lstm": Definition(speech.KeywordLSTM, lambda: torch.randn(2, 160, 20)),
    "cifar_resnet20": Definition(CifarResNet, images(32)),
}

DEFINITIONS = {f"plain/{name}": definition for name, definition in FAMILIES.items()}
