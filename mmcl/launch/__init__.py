"""Many runs on one machine or a cluster: processes that stay, slots of devices, and what Hydra starts."""
