#!lua flags=allow-oom
-- resume: ends what `pause` began. A flood wait of the same scope goes on.
--
-- KEYS  1 front door
-- ARGV  1 scope: "bot", "bot:chat" or *   2 operation id
-- include: keys, aliases, limits, bell

-- One that was held up on its way must not undo what somebody did since.
if not redis.call('SET', operation_key(ARGV[2]), '', 'NX', 'EX', 60) then return end
local scope = canonical(ARGV[1])
redis.call('HDEL', PAUSED, 'hand ' .. scope)
-- Whatever waited for this is looked at again; where something else is in the way, it finds that then.
if scope == '*' then
  for _, account in ipairs(redis.call('ZRANGEBYSCORE', BOTS_DUE, FOR_EVER, '+inf', 'LIMIT', 0, 10000)) do
    redis.call('ZADD', BOTS_DUE, 'XX', now, account)
  end
elseif string.find(scope, ':', 1, true) then
  redis.call('ZADD', DUE, 'XX', now, scope)
else
  wake_bot(scope, now)
end
ring()
