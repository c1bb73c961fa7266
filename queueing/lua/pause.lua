#!lua flags=allow-oom
-- pause: nothing leaves of a bot, of a lane or at all, until somebody resumes it.
--
-- KEYS  1 front door
-- ARGV  1 scope: "bot", "bot:chat" or *   2 reason, a line   3 operation id
-- include: keys, aliases

-- One that was held up on its way must not undo what somebody did since.
if not redis.call('SET', operation_key(ARGV[3]), '', 'NX', 'EX', 60) then return end
redis.call('HSET', PAUSED, 'hand ' .. canonical(ARGV[1]), string.format('%.0f %s', wall, ARGV[2]))
