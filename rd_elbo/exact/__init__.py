"""Sources and models with exact rates, distortions and bounds, for comparison."""
