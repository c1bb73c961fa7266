-- grant: the one place where a message is admitted. Every limit is asked before anything is written.

local promote, granted, grant_alone, grant, next_due

local leased -- lane and value of what is to be written into the process's `held` hash

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

  -- → the head as a grant has it, { lane, token, attempts, takeovers, entry, results of its parents if it has any }, the
  -- message, the id of what it waits for, and what is wrong with its parents; nil if there is none
  function granted(lane, priority, token)
    local entry = redis.call('LINDEX', list_key(priority, lane), 0)
    if not entry then return nil end
    local message, waits_for, wrong, results = parse_rest(entry), nil, nil, nil
    if message.may_wait then waits_for, wrong, results = parents.of(message) end
    local attempts, takeovers = tries(priority, lane)
    return { lane, token, attempts, takeovers, entry, results }, message, waits_for, wrong
  end

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

  -- Takes away heads that are not to be sent any more, `most` at most. → how many were looked at in vain, then the grant
  -- (still without a token) and the message of the head that is to be sent on this account; without one, the lane is put
  -- where it belongs.
  local function clear_heads(lane, priority, account, most, status_ttl, buried)
    local cleared = 0
    while cleared < most do
      local grant, message, waits_for, wrong = granted(lane, priority, '')
      if not grant then break end
      local why, error = ended(message, grant[4], wrong)
      if not why and not waits_for and account == (message == PLAIN and bot_of_lane(lane) or account_for(lane, grant[5])) then return cleared, grant, message end
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

  at_start(function() leased, last_token, tokens_left = {}, 0, 0 end)

  local function lease(grant, message, priority, account, token, call)
    local lane, bot = grant[1], bot_of_account(account)
    leased[#leased + 1] = lane
    leased[#leased + 1] = token .. ' ' .. call .. ' ' .. priority .. ' ' .. text_of(now) .. (message.paid and ' p' or '')
    note_turn(account, bot)
    count_departure(account, token)
    note_probe(bot, lane)
    take_in_hand(bot, priority)
    if message.after then parents.use(message) end
    grant[2] = token
    if message.tracked then set_status(message.id, OPEN_STATUS_MS, 'status', 'sending') end
    return grant
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

  -- → the grant of what was set aside, if it may leave now, and whether the process may take anything else
  function grant_alone(lane, leases, held_key_, call, status_ttl, buried)
    local running = leases[lane]
    if running and not is_fresh(running) then
      redis.call('HDEL', held_key_, '#alone')
      return nil, true
    end
    if running or has_company(leases) then return nil, false end
    local account = account_of_lane(lane)
    local free_at = may_leave_at(account)
    if free_at > now and free_at <= now + ALONE_MS then
      block(account, free_at)
      return nil, false
    end
    redis.call('HDEL', held_key_, '#alone')
    local priority = place(lane, 0)
    if free_at > now or not priority then return nil, true end
    leave_ready(lane)
    redis.call('ZREM', DUE, lane) -- a retry of a higher priority may be due later
    local _, found, message = clear_heads(lane, priority, account, LOOKS, status_ttl, buried)
    if not found then return nil, true end
    local is_suspect = found[4] >= SUSPECT
    if is_suspect then set_aside(lane, held_key_) end
    return lease(found, message, priority, account, next_token(1), call), not is_suspect
  end

  -- buried: gets reason and error of each that dies. → the grants, and whether there was more to look at than one call may;
  -- nil: the last is a suspect, or one was set aside
  function grant(want, leases, held_key_, call, status_ttl, buried)
    local grants, passed, looks, is_alone = {}, { count = 0 }, 0, false
    while #grants < want and looks < LOOKS and not is_alone do
      local account, put_off = choose_account(passed)
      looks = looks + put_off
      if not account and put_off == 0 then break end
      local lane, priority
      if account then lane, priority = next_lane(account, passed, want - #grants) end
      local free_at = lane and chat_free_at(lane)
      if lane and free_at > now then
        redis.call('ZADD', DUE, free_at, lane)
        looks = looks + 1
      elseif lane then
        local cleared, found, message = clear_heads(lane, priority, account, LOOKS - looks, status_ttl, buried)
        looks = looks + cleared
        is_alone = found and found[4] >= SUSPECT
        if is_alone then set_aside(lane, held_key_) end
        if found and (not is_alone or (#grants == 0 and not has_company(leases))) then
          grants[#grants + 1] = lease(found, message, priority, account, next_token(want - #grants), call)
        end
      end
    end
    put_back()
    if is_alone then return grants end
    return grants, looks >= LOOKS
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
