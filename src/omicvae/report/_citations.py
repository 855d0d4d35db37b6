"""Whom to cite for what."""

from __future__ import annotations

MODELS = {
    "CoVAE": "Caretti and Sanguinetti. CoVAE: correlated multimodal generative modeling. arXiv:2603.01965 (2026).",
    "MMVAEPlusPlus": (
        "Märtens and Yau. Disentangling shared and private latent factors in multimodal Variational Autoencoders. MLCB, "
        "PMLR 240 (2024)."
    ),
    "MVAE": "Wu and Goodman. Multimodal generative models for scalable weakly-supervised learning. NeurIPS 31 (2018).",
    "MMVAE": (
        "Shi, Siddharth, Paige and Torr. Variational mixture-of-experts autoencoders for multi-modal deep generative models. "
        "NeurIPS 32 (2019)."
    ),
    "MMVAEPlus": (
        "Palumbo, Daunhawer and Vogt. MMVAE+: enhancing the generative quality of multimodal VAEs without compromises. "
        "ICLR (2023)."
    ),
    "MoPoE": "Sutter, Daunhawer and Vogt. Generalized multimodal ELBO. ICLR (2021).",
    "DMVAE": (
        "Lee and Pavlovic. Private-shared disentangled multimodal VAE for learning of latent representations. CVPR "
        "Workshops, 1692-1700 (2021)."
    ),
    "JMVAE": "Suzuki, Nakayama and Matsuo. Joint multimodal learning with deep generative models. arXiv:1611.01891 (2016).",
    "MVTCAE": (
        "Hwang, Kim, Hong and Kim. Multi-view representation learning via total correlation objective. NeurIPS 34 (2021)."
    ),
    "ProbabilisticCCA": (
        "Bach and Jordan. A probabilistic interpretation of canonical correlation analysis. Technical report 688, "
        "Department of Statistics, University of California, Berkeley (2005). Virtanen, Klami, Khan and Kaski. Bayesian "
        "group factor analysis. AISTATS, PMLR 22 (2012)."
    ),
}
"""Class -> the paper it implements."""

SOFTWARE = (
    "Gayoso et al. A Python library for probabilistic analysis of single-cell omics data. Nature Biotechnology 40, 163-166 "
    "(2022).",
    "Bredikhin, Kats and Stegle. MUON: multimodal omics analysis framework. Genome Biology 23, 42 (2022).",
)
"""scvi-tools, and MuData."""
