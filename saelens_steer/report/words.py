"""The report's plain-language texts: what each number and each word means."""

QUALITY = {
    "l0": ("L0", "features active on a token, on average"),
    "l1": ("L1", "sum of the activations of a token's features, on average"),
    "explained_variance": (
        "Explained variance",
        "share of the activations' variance that the SAE rebuilds; 1 is perfect",
    ),
    "cosine": ("Cosine", "between an activation and what the SAE makes of it, on average"),
    "mse": ("Squared error", "squared distance of the two, summed over coordinates, on average"),
    "l2_ratio": ("Shrinkage", "norm of what the SAE makes of an activation over the norm it had"),
    "ce_loss": ("Loss, untouched", "next-token loss of the model as it is, in nats"),
    "ce_loss_sae": ("Loss, through the SAE", "the same with the activations replaced by the SAE's"),
    "ce_loss_zero": ("Loss, zeroed", "the same with the activations set to zero"),
    "loss_recovered": (
        "Loss recovered",
        "how far the SAE brings the loss from zeroed (0) back to untouched (1)",
    ),
    "kl_sae": ("KL, through the SAE", "from the untouched model's predictions, in nats"),
    "kl_zero": ("KL, zeroed", "the same with the activations set to zero"),
    "kl_recovered": ("KL recovered", "how much of that divergence the SAE undoes; 1 is all of it"),
    "dead_share": ("Dead features", "share of features that never fired on these tokens"),
    "dense_share": ("Dense features", "share of features that fire on over a tenth of the tokens"),
    "d_in": ("Width", "of the activations"),
    "d_sae": ("Features", "of the SAE"),
    "epochs": ("Epochs", "so many times the cached activations were gone over"),
    "stopped_early": ("Stopped early", "whether training ended because it no longer got better"),
    "n_tokens": ("Tokens", "so many tokens were measured"),
    "sinks_dropped": (
        "Sinks left out",
        "tokens with norms many times the median (attention sinks)",
    ),
}
"""Label and meaning of each number that the SAE room may write."""
QUALITY_FIRST = (
    *("loss_recovered", "kl_recovered", "explained_variance", "cosine"),
    *("l0", "dead_share", "dense_share"),
)
"""Those that are shown at once."""

FAMILIES = {
    "covariance": "drawn with the activations' own covariance, which moves the model further than "
    "directions drawn evenly and so is the harder test",
    "isotropic": "drawn evenly over all directions",
    "feature": "decoder rows of other features that fire about as often as those under test",
    "permuted": "the directions under test with their coordinates shuffled",
    "token_difference": "differences of the activations of two tokens, which the model itself "
    "tells apart: some are concepts, and so this is the strictest test",
}
"""What each family of controls is."""

CONTROLS = {
    "size": "Random directions scaled to the norm of the steered vector and applied at the same "
    "hook and positions.",
    "KL": "Random directions applied at the same hook and positions, as far as gives the same mean "
    "KL to the unsteered model as the steered vector does.",
}
"""What controls are, by what they have in common with what they are compared with."""

METHOD = {
    "Steering": "At the hook, the residual x of every steered position becomes x + α · direction.",
    "Patching": "Other edits of x. Those of features encode x, change the activations z, and add "
    "the difference that makes to the decoded x (keep), or put the decoded x there instead (drop).",
    "Effect Δ": "The mean over prompts of a metric at α minus the same prompts' at α = 0. "
    "Intervals are 95 % bootstrap intervals over prompts.",
    "T": "A direction's largest |Δ| over the strengths. Taking the largest makes it easy to find "
    "something, so each control is given the same chance.",
    "p": "(1 + the number of controls whose T is at least as large) / (K + 1), with K controls. It "
    "cannot be smaller than 1 / (K + 1).",
    "p for the best": "In the headline: how often the best of as many random directions would "
    "reach as far as the best candidate did.",
    "q": "p after the Benjamini–Hochberg correction over the directions of this report: among "
    "claims with q < 0.05, no more than about one in twenty is expected to be false.",
    "Opposite sign": "The share of prompts on which Δ points against the mean effect.",
    "Verdict": "“More than random” means q < 0.05. “Not testable” means that K is too small for "
    "any p to count: claims about m directions take at least 20 · m controls.",
}
"""Definitions; that of the controls is put in as the fifth."""
