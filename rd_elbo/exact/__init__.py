"""Sources and models whose rates, distortions and bounds are known exactly: what learned numbers are held against."""
