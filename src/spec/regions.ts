/** §9: the regions that exist by default. Operator data: a code is three lowercase letters (REG-1). */
export interface Region {
  code: string
  name: string
  latitude: number
  longitude: number
  geo_region: string
}

const area = (geo_region: string, rows: [string, string, number, number][]): Region[] =>
  rows.map(([code, name, latitude, longitude]) => ({ code, name, latitude, longitude, geo_region }))

export const defaultRegions: readonly Region[] = [
  ...area('europe', [
    ['ams', 'Amsterdam, Netherlands', 52.37, 4.9],
    ['arn', 'Stockholm, Sweden', 59.65, 17.92],
    ['cdg', 'Paris, France', 48.86, 2.35],
    ['fra', 'Frankfurt, Germany', 50.12, 8.68],
    ['lhr', 'London, United Kingdom', 51.52, -0.13],
  ]),
  ...area('north_america', [
    ['dfw', 'Dallas, Texas (US)', 32.78, -96.8],
    ['ewr', 'Secaucus, NJ (US)', 40.79, -74.06],
    ['iad', 'Ashburn, Virginia (US)', 39.02, -77.46],
    ['lax', 'Los Angeles, California (US)', 33.94, -118.41],
    ['ord', 'Chicago, Illinois (US)', 41.89, -87.63],
    ['sjc', 'San Jose, California (US)', 37.35, -121.9],
    ['yyz', 'Toronto, Canada', 43.64, -79.38],
  ]),
  ...area('south_america', [['gru', 'Sao Paulo, Brazil', -23.55, -46.65]]),
  ...area('asia_pacific', [
    ['bom', 'Mumbai, India', 19.08, 72.88],
    ['nrt', 'Tokyo, Japan', 35.62, 139.74],
    ['sin', 'Singapore, Singapore', 1.3, 103.8],
    ['syd', 'Sydney, Australia', -33.87, 151.21],
  ]),
  ...area('africa', [['jnb', 'Johannesburg, South Africa', -26.14, 28.2]]),
]

export const regionCodePattern = /^[a-z]{3}$/
