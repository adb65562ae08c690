import { z } from 'zod'

/** `POST /v1/apps/:app/certificates/acme`. */
export const certificateInputSchema = z.object({ hostname: z.string() })

export const certificateSummarySchema = z.object({
  hostname: z.string(),
  status: z.string(),
  configured: z.boolean(),
  acme_requested: z.boolean(),
  acme_dns_configured: z.boolean(),
  acme_alpn_configured: z.boolean(),
  acme_http_configured: z.boolean(),
  ownership_txt_configured: z.boolean(),
  has_custom_certificate: z.boolean(),
  has_fly_certificate: z.boolean(),
  created_at: z.string(),
  updated_at: z.string(),
})
export type CertificateSummary = z.infer<typeof certificateSummarySchema>

export const certificateDetailSchema = z.object({
  hostname: z.string(),
  status: z.string(),
  configured: z.boolean(),
  acme_requested: z.boolean(),
  certificates: z.array(z.looseObject({})),
  validation: z.object({
    dns_configured: z.boolean(),
    alpn_configured: z.boolean(),
    http_configured: z.boolean(),
    ownership_txt_configured: z.boolean(),
  }),
  /** What the owner of the name must write into its zone. */
  dns_requirements: z.object({
    a: z.array(z.string()),
    aaaa: z.array(z.string()),
    cname: z.string(),
    acme_challenge: z.object({ name: z.string(), target: z.string() }),
    ownership: z.object({ name: z.string(), app_value: z.string(), org_value: z.string() }),
  }),
})
export type CertificateDetail = z.infer<typeof certificateDetailSchema>
