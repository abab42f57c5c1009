"""The two-stage translator as effects: `two_stage`, and `keyframe` with networks trained on painted frames."""
