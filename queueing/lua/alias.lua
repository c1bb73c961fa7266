#!lua flags=allow-oom
-- alias: a chat has another name. Their lanes become one, by order of acceptance; what this call does not get done is
-- done by those of `claim` that follow. Again it does nothing.
--
-- KEYS  1 front door
-- ARGV  1 bot   2 chat   3 other: the name that stays   4 limits, see limits.lua
-- include: keys, aliases, limits, open, parents, lane, presence, names, merge, bell

local bot, chat, other = ARGV[1], ARGV[2], ARGV[3]
read_limits(ARGV[4])
alias(bot .. ':' .. chat, bot .. ':' .. other)
merge_lanes()
write_counts()
ring()
