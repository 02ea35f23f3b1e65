import type { ViteUserConfig } from 'vitest/config'
import { suite } from './vitest.config.ts'

const config: ViteUserConfig = suite(true)
export default config
