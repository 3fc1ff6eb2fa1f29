# Runs a deployment script with the functions by which it talks to the server.
param([string]$TakoScript)
$ErrorActionPreference = 'Stop'
$own = Split-Path -Parent $MyInvocation.MyCommand.Path
$OctopusParameters = New-Object 'System.Collections.Generic.Dictionary[string,string]' ([System.StringComparer]::OrdinalIgnoreCase)
(Get-Content -Raw -LiteralPath (Join-Path $own 'variables.json') | ConvertFrom-Json -AsHashtable).GetEnumerator() |
    ForEach-Object { $OctopusParameters[$_.Key] = $_.Value }

function Get-TakoEncoded([string]$value) { [Convert]::ToBase64String([Text.Encoding]::UTF8.GetBytes($value)) }
function Write-TakoLevel([string]$level, $message) {
    [Console]::Out.WriteLine("##octopus[stdout-$level]")
    [Console]::Out.WriteLine([string]$message)
    [Console]::Out.WriteLine('##octopus[stdout-default]')
}
function Set-OctopusVariable([string]$name, [string]$value, [switch]$sensitive) {
    $secret = if ($sensitive) { " sensitive='$(Get-TakoEncoded 'True')'" } else { '' }
    [Console]::Out.WriteLine("##octopus[setVariable name='$(Get-TakoEncoded $name)' value='$(Get-TakoEncoded $value)'$secret]")
}
function New-OctopusArtifact([Parameter(Mandatory)][string]$Path, [string]$Name) {
    $full = (Resolve-Path -LiteralPath $Path).Path
    if (-not $Name) { $Name = Split-Path -Leaf $full }
    $length = (Get-Item -LiteralPath $full).Length
    [Console]::Out.WriteLine("##octopus[createArtifact path='$(Get-TakoEncoded $full)' name='$(Get-TakoEncoded $Name)' length='$(Get-TakoEncoded $length)']")
}
function Update-Progress([int]$percentage, [string]$message = '') {
    [Console]::Out.WriteLine("##octopus[progress percentage='$(Get-TakoEncoded $percentage)' message='$(Get-TakoEncoded $message)']")
}
function Fail-Step([string]$message) {
    if ($message) { [Console]::Out.WriteLine("##octopus[resultMessage message='$(Get-TakoEncoded $message)']") }
    exit 1
}
function Write-Highlight($message) { Write-TakoLevel 'highlight' $message }
function Write-Wait($message) { Write-TakoLevel 'wait' $message }

$TakoArguments = Get-Content -Raw -LiteralPath (Join-Path $own 'arguments.txt') -ErrorAction SilentlyContinue
$global:LASTEXITCODE = 0
Invoke-Expression ". '$($TakoScript -replace "'", "''")' $TakoArguments"
exit $LASTEXITCODE
