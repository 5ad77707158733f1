-- Who had the keys, and when?
SELECT called, call, who, source, endpoint, context, object, requestid
FROM audit
WHERE outcome = 'ok' AND (call IN ('kms:Decrypt', 'kms:ReEncrypt') OR call LIKE 'kms:GenerateDataKey%' OR object <> '' AND call LIKE 's3:Get%')
ORDER BY called, call, eventid
