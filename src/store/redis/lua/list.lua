-- KEYS: the listing. ARGV: session id, time, time to live in ms, longest listing, whether to sweep it.
list(KEYS[1], nil, nil, ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5])
return 1
