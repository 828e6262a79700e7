"""Other messengers beside a superevent (section 10): external notices, joint false-alarm rates, survey alerts."""
