"""Several processes that train one model together: launch, shares of a batch, gradients."""
