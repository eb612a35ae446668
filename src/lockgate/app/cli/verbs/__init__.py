"""What each verb does: options in, one answer out. `main.VERBS` says where a verb lives, and loads it when asked."""
