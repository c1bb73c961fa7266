-- grant: the one place where a message is admitted. Every limit is asked before anything is written.

local promote, grant_again, granted, grant_alone, grant, next_due

local leased -- field and value of what is to be written into the process's `held` hash

do -- a script has room for 200 local names; all the rest here is for these alone
  local ALONE_MS = 1000  -- for which empty hands wait for the bot of what was set aside for them
  local LOOKS = 50       -- accounts, lanes and messages that may be found not to be eligible after all, in one call

  -- What has become due goes back to its place, at most 100 of each kind a call.
  function promote()
    if redis.call('EXISTS', DUE, BOTS_DUE) == 0 then return end -- what this call placed may be due, too
    for _, lane in ipairs(redis.call('ZRANGEBYSCORE', DUE, '-inf', now, 'LIMIT', 0, 100)) do
      redis.call('ZREM', DUE, lane)
      if any_tried then leave_ready(lane) end -- for a lower priority, while this one's retry was not due
      place(lane, served_at(lane))
    end
    for _, account in ipairs(redis.call('ZRANGEBYSCORE', BOTS_DUE, '-inf', now, 'LIMIT', 0, 100)) do
      redis.call('ZREM', BOTS_DUE, account)
      redis.call('ZADD', BOTS, account_served_at(account), account)
      blocked[account], in_bots[account], bots_in_turn = false, true, nil
    end
  end

  -- → the entry of the head, its message, the results of its parents if it has any, the id of what it waits for, and what
  -- is wrong with its parents; nil if there is none
  local function head_of(lane, priority)
    local entry = redis.call('LINDEX', list_key(priority, lane), 0)
    if not entry then return nil end
    local message = parse_rest(entry)
    if not message.may_wait then return entry, message end
    local waits_for, wrong, results = parents.of(message)
    return entry, message, results, waits_for, wrong
  end

  local grants -- six values of each: lane, token, attempts, takeovers, entry, results of its parents or ''
  local count_of_grants

  local function put_grant(lane, token, attempts, takeovers, entry, results)
    local last = 6 * count_of_grants
    grants[last + 1], grants[last + 2], grants[last + 3] = lane, token, attempts
    grants[last + 4], grants[last + 5], grants[last + 6] = takeovers, entry, results or ''
    count_of_grants = count_of_grants + 1
  end

  -- What the process was granted before, once more.
  function grant_again(lane, priority, token)
    local attempts, takeovers = tries(priority, lane)
    local entry, _, results = head_of(lane, priority)
    put_grant(lane, token, attempts, takeovers, entry, results)
  end

  -- → what was granted in this call, in one list, and how many those are
  function granted() return grants, count_of_grants end

  local SUSPECT = 2 -- take-overs after which a message runs alone in its process: then it is known whose fault the next is

  local POISONED = 'the processes that held it were not heard any more, three times or more'

  -- Why a head is not to be sent any more, and of those that die of it the error; nil if it is. wrong: see granted.
  local function ended(message, takeovers, wrong)
    local why = over(message)
    if why == 'done' then
      local reason, error = open.failure_of(message.id)
      return reason or why, error
    end
    if why then return why end
    if takeovers >= poison.MOST then return 'poison', POISONED end
    if wrong then return 'parent_dead', wrong end
  end

  local STATES = { done = 'sent', recalled = 'cancelled' }
  local COUNTS = { done = 'sent', recalled = 'cancelled', expired = 'expired' } -- who cancelled one has counted it

  local function clear_head(lane, priority, message, why, error, status_ttl, buried)
    if error then
      bury_head(lane, priority, status_ttl, why, error)
      buried[#buried + 1] = why
      buried[#buried + 1] = error
      return
    end
    local state = STATES[why] or why
    remove_head(priority, lane, state, why == 'done' and '' or nil, parse)
    if message.tracked then set_status(message.id, status_ttl, 'status', state) end
    if COUNTS[why] then count(COUNTS[why], 1) end
  end

  -- Takes away heads that are not to be sent any more, `most` at most. → how many were looked at in vain, then the message
  -- of the head that is to be sent on this account, its entry, attempts, takeovers and the results of its parents; without
  -- one, the lane is put where it belongs.
  local function clear_heads(lane, priority, account, most, status_ttl, buried)
    local cleared = 0
    while cleared < most do
      local entry, message, results, waits_for, wrong = head_of(lane, priority)
      if not entry then break end
      local attempts, takeovers = tries(priority, lane)
      local why, error = ended(message, takeovers, wrong)
      if not why and not waits_for and account == account_of(bot_of_lane(lane), message.paid) then
        return cleared, message, entry, attempts, takeovers, results
      end
      cleared = cleared + 1
      if not why then break end
      clear_head(lane, priority, message, why, error, status_ttl, buried)
    end
    put_back()
    place(lane, now - FRESH_MS)
    return cleared
  end

  -- Tokens are never used twice, not even where the server lost what it did last (a failover, a loss of power) and would
  -- count the same once more: they begin with its time, in µs. Those that a call set aside and did not need are lost.
  local last_token, tokens_left
  local function next_token(want)
    if tokens_left == 0 then
      local last = tonumber(redis.call('HGET', TOTALS, 'fence') or 0)
      last_token, tokens_left = math.max(last, wall * 1000) + want, want
      redis.call('HSET', TOTALS, 'fence', string.format('%.0f', last_token))
    end
    tokens_left = tokens_left - 1
    return string.format('%.0f', last_token - tokens_left)
  end

  at_start(function() leased, last_token, tokens_left, grants, count_of_grants = {}, 0, 0, {}, 0 end)

  local function lease(lane, priority, account, message, token, call)
    local bot = bot_of_account(account)
    leased[#leased + 1] = lane
    leased[#leased + 1] = token .. ' ' .. call .. ' ' .. priority .. ' ' .. text_of(now) .. (message.paid and ' p' or '')
    note_turn(account, bot)
    count_departure(account, token)
    note_probe(bot, lane)
    take_in_hand(bot, priority)
    if message.after then parents.use(message) end
    if message.tracked then set_status(message.id, OPEN_STATUS_MS, 'status', 'sending') end
  end

  -- A suspect is set aside for this process, which takes nothing else until its hands are empty, and then that alone.
  -- What has been held for a while is no company, since it has not killed the process, and neither is the suspect then:
  -- handlers may take for ever, and so many of them would stop all processes.
  local function is_fresh(lease) return now - lease.granted < poison.SOON_MS end

  local function has_company(leases)
    for _, lease in pairs(leases) do
      if is_fresh(lease) then return true end
    end
    return false
  end

  local function set_aside(lane, held_key_) redis.call('HSET', held_key_, '#alone', lane) end

  -- Of the first message that is to leave, whenever it may.
  local function account_of_lane(lane)
    for _, priority in ipairs(PRIORITIES) do
      local entry = redis.call('LINDEX', list_key(priority, lane), 0)
      if entry then return account_for(lane, entry) end
    end
    return bot_of_lane(lane)
  end

  -- Grants what was set aside, if it may leave now. → whether the process may take anything else
  function grant_alone(lane, leases, held_key_, call, status_ttl, buried)
    local running = leases[lane]
    if running and not is_fresh(running) then
      redis.call('HDEL', held_key_, '#alone')
      return true
    end
    if running or has_company(leases) then return false end
    local account = account_of_lane(lane)
    local free_at = may_leave_at(account)
    if free_at > now and free_at <= now + ALONE_MS then
      block(account, free_at)
      return false
    end
    redis.call('HDEL', held_key_, '#alone')
    local priority = place(lane, 0)
    if free_at > now or not priority then return true end
    leave_ready(lane)
    redis.call('ZREM', DUE, lane) -- a retry of a higher priority may be due later
    local _, message, entry, attempts, takeovers, results = clear_heads(lane, priority, account, LOOKS, status_ttl, buried)
    if not message then return true end
    if takeovers >= SUSPECT then set_aside(lane, held_key_) end
    local token = next_token(1)
    lease(lane, priority, account, message, token, call)
    put_grant(lane, token, attempts, takeovers, entry, results)
    return false
  end

  -- begun: how many of those wanted are begun at once; the others are to be at hand. buried: gets reason and error of each
  -- that dies. → whether there was more to look at than one call may; nil: the last is a suspect, or one was set aside
  function grant(want, begun, leases, held_key_, call, status_ttl, buried)
    local passed, looks, is_alone = { count = 0 }, 0, false
    while count_of_grants < want and looks < LOOKS and not is_alone do
      if count_of_grants == begun then leave_out_bulk() end
      local account, put_off = choose_account(passed)
      looks = looks + put_off
      if not account and put_off == 0 then break end
      local lane, priority
      if account then lane, priority = next_lane(account, passed, want - count_of_grants) end
      local free_at = lane and chat_free_at(lane)
      if lane and free_at > now then
        redis.call('ZADD', DUE, free_at, lane)
        looks = looks + 1
      elseif lane then
        local cleared, message, entry, attempts, takeovers, results =
          clear_heads(lane, priority, account, LOOKS - looks, status_ttl, buried)
        looks = looks + cleared
        if message and message.held and count_of_grants >= begun then
          -- Not at hand: if this process died, it would wait for a person, though nobody began it.
          put_back()
          place(lane, now - FRESH_MS)
          return false
        end
        is_alone = message and takeovers >= SUSPECT
        if is_alone then set_aside(lane, held_key_) end
        if message and (not is_alone or (count_of_grants == 0 and not has_company(leases))) then
          local token = next_token(want - count_of_grants)
          lease(lane, priority, account, message, token, call)
          put_grant(lane, token, attempts, takeovers, entry, results)
        end
      end
    end
    put_back()
    if is_alone then return nil end
    return looks >= LOOKS
  end

  -- ms until a lane, a bot or a scheduled message has to be looked at again; -1: none is waiting for a time
  function next_due()
    if redis.call('EXISTS', DUE, BOTS_DUE, SCHEDULED) == 0 then return -1 end
    local lane = redis.call('ZRANGE', DUE, 0, 0, 'WITHSCORES')[2]
    local bot = redis.call('ZRANGE', BOTS_DUE, 0, 0, 'WITHSCORES')[2]
    local scheduled = redis.call('ZRANGE', SCHEDULED, 0, 0, 'WITHSCORES')[2]
    local due = scheduled and tonumber(scheduled) + skew
    local first = math.min(tonumber(lane or FOR_EVER), tonumber(bot or FOR_EVER), due or FOR_EVER)
    return first < FOR_EVER and math.max(0, math.ceil(first - now)) or -1
  end
end
