"""Where engines come from: named by the operator, or found in Kubernetes."""
