-- recall_group: none of a group that is not in flight is sent any more; each is cleared when it is the head (grant.lua).
local function recall_group(name)
  redis.call('HSET', group_key(name), '#cancelled', 1)
  redis.call('EXPIRE', group_key(name), 30 * 24 * 3600)
end
