-- dedup: of messages of a bot with the same key, the first of 24 hours is taken.
-- → whether the message is the first
local function claim_dedup_key(bot, key, id)
  if redis.call('SET', dedup_key(bot, key), id, 'NX', 'EX', 24 * 3600) then return true end
  count('deduplicated', 1)
  return false
end
